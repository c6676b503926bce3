//! Where a tensor's numbers lie in a weight file, and reading them as f32.

use std::fmt;
use std::ops::Range;

use half::{bf16, f16};
use rayon::prelude::*;

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ElementType {
    F64,
    F32,
    F16,
    Bf16,
    /// One that no encoder's weights are stored in, as a buffer of positions has it.
    Unread {
        name: &'static str,
        bytes: usize,
    },
}

impl ElementType {
    /// Bytes of one number.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Unread { bytes, .. } => bytes,
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Unread { name, .. } => name,
        })
    }
}

/// A tensor in a weight file. That it lies within the file was checked when it was made.
#[derive(Debug, Clone)]
pub(super) struct StoredTensor {
    pub(super) element: ElementType,
    pub(super) shape: Vec<usize>,
    /// Elements from one index to the next, for each dimension; none: row-major without gaps.
    strides: Option<Vec<usize>>,
    /// Byte of the file at which element 0 begins.
    start: usize,
}

impl StoredTensor {
    /// A row-major tensor without gaps whose bytes, which the caller has checked to be as many
    /// as `shape` takes, begin at `start`.
    pub(super) fn row_major(element: ElementType, shape: Vec<usize>, start: usize) -> Self {
        Self {
            element,
            shape,
            strides: None,
            start,
        }
    }

    /// A tensor whose element 0 is element `first` of `elements` that begin at byte `start`;
    /// else what is wrong with it. No tensor has more elements than there are: a few bytes could
    /// otherwise stand for more than fits in memory.
    pub(super) fn strided(
        element: ElementType,
        shape: &[usize],
        strides: &[usize],
        first: usize,
        elements: usize,
        start: usize,
    ) -> Result<Self, String> {
        let described = || format!("shape {shape:?} with strides {strides:?} from element {first}");
        let count = shape
            .iter()
            .try_fold(1usize, |count, &size| count.checked_mul(size));
        let count = count.filter(|&count| count <= elements);
        let count = count.ok_or_else(|| {
            format!(
                "{} asks for more than the {elements} numbers stored",
                described()
            )
        })?;
        let mut last = first;
        for (&size, &stride) in shape.iter().zip(strides) {
            let reach = size.saturating_sub(1).checked_mul(stride);
            let reach = reach.and_then(|reach| last.checked_add(reach));
            last = reach.ok_or_else(|| format!("{} is out of range", described()))?;
        }
        if count > 0 && last >= elements {
            let problem = format!("{} ends behind the {elements} numbers stored", described());
            return Err(problem);
        }
        let start = if count == 0 {
            start
        } else {
            start + first * element.bytes()
        };
        let strides = (count > 0 && strides != row_major_strides(shape)).then(|| strides.to_vec());
        Ok(Self {
            element,
            shape: shape.to_vec(),
            strides,
            start,
        })
    }

    /// What lies at the indices `rows` of the first dimension.
    ///
    /// # Panics
    /// If there are no such places.
    pub(super) fn rows(&self, rows: Range<usize>) -> Self {
        assert!(
            rows.start <= rows.end && rows.end <= self.shape[0],
            "rows {rows:?} of {:?}",
            self.shape
        );
        let stride = match &self.strides {
            Some(strides) => strides[0],
            None => self.shape[1..].iter().product(),
        };
        let mut shape = self.shape.clone();
        shape[0] = rows.len();
        Self {
            element: self.element,
            shape,
            strides: self.strides.clone(),
            start: self.start + rows.start * stride * self.element.bytes(),
        }
    }

    /// The numbers, row-major, out of the `file` that the tensor is in; none for a type that is
    /// not read.
    pub(super) fn floats(&self, file: &[u8]) -> Option<Vec<f32>> {
        Some(match self.element {
            ElementType::F64 => self.convert(file, |bytes| {
                #[expect(clippy::cast_possible_truncation, reason = "weights are used as f32")]
                let number = f64::from_le_bytes(bytes) as f32;
                number
            }),
            ElementType::F32 => self.convert(file, f32::from_le_bytes),
            ElementType::F16 => self.convert(file, |pair| f16::from_le_bytes(pair).to_f32()),
            ElementType::Bf16 => self.convert(file, |pair| bf16::from_le_bytes(pair).to_f32()),
            ElementType::Unread { .. } => return None,
        })
    }

    /// Converts little-endian numbers of `N` bytes, in parallel: embeddings are large.
    fn convert<const N: usize>(
        &self,
        file: &[u8],
        number: impl Fn([u8; N]) -> f32 + Sync,
    ) -> Vec<f32> {
        let count = self.shape.iter().product();
        let (numbers, _) = file[self.start..].as_chunks::<N>();
        let Some(strides) = &self.strides else {
            let numbers = numbers[..count].par_iter();
            return numbers.map(|chunk| number(*chunk)).collect();
        };
        let place = |index: usize| {
            let mut rest = index;
            let dimensions = self.shape.iter().zip(strides).rev();
            let places = dimensions.map(|(size, stride)| {
                let place = rest % size * stride;
                rest /= size;
                place
            });
            places.sum::<usize>()
        };
        let indices = (0..count).into_par_iter();
        indices.map(|index| number(numbers[place(index)])).collect()
    }
}

/// The strides of a tensor without gaps, in elements.
fn row_major_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides: Vec<usize> = shape
        .iter()
        .rev()
        .scan(1usize, |stride, size| {
            let here = *stride;
            *stride = stride.saturating_mul(*size);
            Some(here)
        })
        .collect();
    strides.reverse();
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_rows_are_those_of_the_whole() {
        let file: Vec<u8> = (0..12u8)
            .flat_map(|number| f32::from(number).to_le_bytes())
            .collect();
        let float = ElementType::F32;
        let plain = StoredTensor::row_major(float, vec![4, 3], 0);
        let strided = StoredTensor::strided(float, &[3, 4], &[1, 3], 0, 12, 0);
        for tensor in [plain, strided.expect("within the file")] {
            let (rows, width) = (tensor.shape[0], tensor.shape[1]);
            let all = tensor.floats(&file).expect("floats");
            for start in 0..rows {
                for end in start..=rows {
                    let some = tensor.rows(start..end).floats(&file);
                    assert_eq!(some.expect("floats"), all[start * width..end * width]);
                }
            }
        }
    }
}
