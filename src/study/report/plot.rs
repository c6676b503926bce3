//! Points on two axes.

/// Differences of larger numbers might be infinite: there is no place for them.
pub(super) const LARGEST: f64 = 1e300;

/// Points on two axes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plot {
    /// Of its file.
    pub name: String,
    /// Over it.
    pub title: String,
    /// Under it, a sentence.
    pub caption: String,
    /// Across.
    pub x: Axis,
    /// Up.
    pub y: Axis,
    /// What is shown.
    pub series: Vec<Series>,
}

/// An axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    /// What it shows, with its unit.
    pub label: String,
    /// What stands beside it.
    pub marks: Marks,
}

/// What stands beside an axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Marks {
    /// Round numbers.
    Numbers,
    /// Round numbers, 0 among them.
    FromZero,
    /// Whole numbers.
    Whole,
    /// These.
    Named(Vec<(f64, String)>),
}

impl Axis {
    /// An axis of what `label` says.
    pub(super) fn new(label: impl Into<String>, marks: Marks) -> Self {
        Self {
            label: label.into(),
            marks,
        }
    }
}

/// Points that belong together.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    /// As the legend has it.
    pub name: String,
    /// In their order.
    pub points: Vec<Point>,
    /// Whether a line joins them.
    pub line: bool,
}

/// A point.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Point {
    /// Where across.
    pub x: f64,
    /// Where up.
    pub y: f64,
    /// What is said when it is pointed at.
    pub title: String,
    /// From where to where up it may be.
    pub interval: Option<[f64; 2]>,
    /// What stands beside it.
    pub label: Option<String>,
    /// Whether it is set apart.
    pub chosen: bool,
}

impl Point {
    /// A point that `title` says more of.
    pub(super) fn new(x: f64, y: f64, title: impl Into<String>) -> Self {
        Self {
            x,
            y,
            title: title.into(),
            interval: None,
            label: None,
            chosen: false,
        }
    }

    /// Whether there is a place for it.
    fn has_place(&self) -> bool {
        self.x.abs() < LARGEST && self.y.abs() < LARGEST
    }
}

impl Series {
    /// Those of its points that can be drawn.
    pub(super) fn finite(&self) -> impl Iterator<Item = &Point> {
        self.points.iter().filter(|point| point.has_place())
    }

    /// A curve through `points` (x, y), each of which says where it is.
    pub(super) fn curve(name: &str, x: &str, y: &str, points: &[(f64, f64)]) -> Self {
        let points = points.iter().map(|&(across, up)| {
            let title = format!("{x} {across}: {y} {}", super::figures::number(up));
            Point::new(across, up, title)
        });
        Self {
            name: name.into(),
            points: points.collect(),
            line: true,
        }
    }
}

impl Plot {
    /// Whether there is anything to see: two points at least that belong together.
    pub(super) fn is_worth_it(&self) -> bool {
        let mut series = self.series.iter();
        series.any(|series| series.finite().count() > 1)
    }
}

/// At most about `most` of `points`: of each stretch the lowest and the highest, so that no peak is
/// lost.
pub(super) fn thinned<'a>(points: &[&'a Point], most: usize) -> Vec<&'a Point> {
    if points.len() <= most {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil((most / 2).max(1));
    let mut kept = Vec::new();
    for part in points.chunks(stretch) {
        let places = 0..part.len();
        let low = places
            .clone()
            .min_by(|&one, &other| part[one].y.total_cmp(&part[other].y));
        let high = places.max_by(|&one, &other| part[one].y.total_cmp(&part[other].y));
        let (Some(low), Some(high)) = (low, high) else {
            continue;
        };
        kept.push(part[low.min(high)]);
        if low != high {
            kept.push(part[low.max(high)]);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_outlast_thinning() {
        let points: Vec<Point> = (0..10_000)
            .map(|x| {
                let y = if x == 5_003 { 9.0 } else { f64::from(x % 3) };
                Point::new(f64::from(x), y, "")
            })
            .collect();
        let all: Vec<&Point> = points.iter().collect();
        let kept = thinned(&all, 500);
        assert!((250..=500).contains(&kept.len()), "{}", kept.len());
        assert!(kept.iter().any(|point| point.y > 8.0));
        assert!(kept.windows(2).all(|two| two[0].x < two[1].x));
        assert_eq!(thinned(&all[..400], 500).len(), 400);
    }
}
