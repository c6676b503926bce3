//! What replicas of a model tell each other: sums of gradients, and the parameters that come of
//! them.

use candle_core::Device;

use super::{Error, Gradients, Parameters};

/// How replicas, the first and `others`, come to one update. The parameters are the same ones in
/// the same order.
pub trait Reduce: Send {
    /// Adds the gradients of `others` to those of the first.
    fn sum(&self, first: &mut Gradients, others: &[&Gradients]) -> Result<(), Error>;

    /// Gives the parameters of `others` the values of the first.
    fn spread(&self, first: &Parameters, others: &[&Parameters]) -> Result<(), Error>;
}

/// What suits replicas on `devices`: NCCL among CUDA cards where this build has it, else copies.
pub fn reduce_over(devices: &[&Device]) -> Result<Box<dyn Reduce>, Error> {
    #[cfg(feature = "nccl")]
    if let Some(cards) = super::nccl::cards(devices) {
        return Ok(Box::new(super::nccl::Nccl::new(&cards)?));
    }
    // None are needed for copies.
    let _ = devices;
    Ok(Box::new(Copies))
}

/// Copies from device to device, one replica after the other: the order of a sum is always the same.
pub struct Copies;

impl Reduce for Copies {
    fn sum(&self, first: &mut Gradients, others: &[&Gradients]) -> Result<(), Error> {
        others.iter().try_for_each(|other| first.add_all(other))
    }

    fn spread(&self, first: &Parameters, others: &[&Parameters]) -> Result<(), Error> {
        for other in others {
            for (own, source) in other.iter().zip(first.iter()) {
                let values = source.variable.as_detached_tensor();
                own.variable.set(&values.to_device(other.device())?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::{Copies, Reduce};
    use crate::trainable::{Gradients, Parameters};

    fn parameters(values: [f32; 3]) -> Parameters {
        let mut parameters = Parameters::new(&Device::Cpu);
        let [a, b, c] = values;
        parameters.add("w", &[2], vec![a, b]).expect("added");
        parameters.add("head", &[1], vec![c]).expect("added");
        parameters
    }

    /// The gradients of `w · x`, and of the head's too.
    fn gradients(parameters: &Parameters, x: [f32; 2], with_head: bool) -> Gradients {
        let mut gradients = Gradients::new(parameters);
        let variables: Vec<_> = parameters.iter().map(|p| p.variable.as_tensor()).collect();
        let x = candle_core::Tensor::new(&x, &Device::Cpu).expect("a tensor");
        let mut loss = (variables[0] * x)
            .and_then(|y| y.sum_all())
            .expect("a loss");
        if with_head {
            let head = variables[1].sum_all().expect("a sum");
            loss = (loss + head).expect("a loss");
        }
        let store = loss.backward().expect("gradients");
        gradients.add(parameters, &store).expect("added");
        gradients
    }

    #[test]
    fn gradients_are_summed_and_parameters_follow() {
        let replicas = [[1.0, 2.0, 3.0], [0.0; 3], [9.0; 3]].map(parameters);
        let [first, second, third] = &replicas;
        let mut sum = gradients(first, [1.0, 2.0], true);
        let others = [
            gradients(second, [10.0, 20.0], false),
            // It had no share of this step.
            Gradients::new(third),
        ];
        Copies
            .sum(&mut sum, &[&others[0], &others[1]])
            .expect("a sum");
        assert_eq!(sum.numbers(0), Some(&[11.0, 22.0][..]));
        assert_eq!(sum.numbers(1), Some(&[1.0][..]));

        Copies.spread(first, &[second, third]).expect("spread");
        for other in [second, third] {
            let values = other.snapshot().expect("copies");
            assert_eq!(values[0].to_vec1::<f32>().expect("numbers"), [1.0, 2.0]);
            assert_eq!(values[1].to_vec1::<f32>().expect("numbers"), [3.0]);
        }
    }

    #[test]
    fn what_the_first_lacks_it_gets() {
        let replicas = [[0.0; 3], [0.0; 3]].map(parameters);
        let mut sum = Gradients::new(&replicas[0]);
        let other = gradients(&replicas[1], [1.0, 2.0], false);
        Copies.sum(&mut sum, &[&other]).expect("a sum");
        assert_eq!(sum.numbers(0), Some(&[1.0, 2.0][..]));
        assert_eq!(sum.numbers(1), None);
    }
}
