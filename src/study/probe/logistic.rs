//! Logistic regression for several classes, fitted to its one optimum.

use std::cell::RefCell;

use argmin::core::{CostFunction, Executor, Gradient};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use super::Scores;
use crate::interrupt;
use crate::study::Error;

/// Strengths λ of the penalty λ ‖W‖² / 2n that are tried, the strongest first. scikit-learn's `C` is 1 / λ.
const PENALTIES: [f64; 4] = [1000.0, 100.0, 10.0, 1.0];
/// Of so many training examples one is held back to choose the penalty by.
const HELD_BACK: usize = 5;
/// Steps of L-BFGS at most, and steps that it remembers.
const STEPS: u64 = 200;
const MEMORY: usize = 10;
/// Norm of the gradient at which it is there.
const GRADIENT: f64 = 1e-4;

/// Vectors `[examples, width]` and the class of each.
pub(super) struct Labelled {
    vectors: Vec<f64>,
    classes: Vec<u32>,
    width: usize,
}

impl Labelled {
    /// Of `vectors`, one number after the other, a vector for each of `classes`.
    pub(super) fn new(vectors: impl Iterator<Item = f64>, classes: &[u32]) -> Self {
        let vectors: Vec<f64> = vectors.collect();
        Self {
            width: vectors.len() / classes.len().max(1),
            vectors,
            classes: classes.to_vec(),
        }
    }

    /// Some for learning and the others for choosing.
    fn split(&self) -> [Self; 2] {
        let part = |held_back: bool| {
            let rows = 0..self.classes.len();
            let rows = rows.filter(|row| (row % HELD_BACK == HELD_BACK - 1) == held_back);
            let vectors = rows.clone().flat_map(|row| self.vector(row)).copied();
            Self {
                vectors: vectors.collect(),
                classes: rows.map(|row| self.classes[row]).collect(),
                width: self.width,
            }
        };
        [part(false), part(true)]
    }

    fn vector(&self, row: usize) -> &[f64] {
        &self.vectors[row * self.width..][..self.width]
    }

    fn matrix(&self) -> MatRef<'_, f64> {
        MatRef::from_row_major_slice(&self.vectors, self.classes.len(), self.width)
    }
}

/// A fitted regression.
pub(super) struct Logistic {
    /// `[width, classes]`, and after it the bias `[classes]`.
    parameters: Vec<f64>,
    classes: usize,
    /// λ.
    pub(super) penalty: f64,
    /// Share of the examples that were held back that it told right, before it learnt of these too.
    pub(super) chosen_by: f64,
}

impl Logistic {
    /// Fits to `train` with the penalty that is best on a fifth of it; of equally good ones the
    /// strongest.
    pub(super) fn fit(train: &Labelled, classes: usize) -> Result<Self, Error> {
        let [learnt, held_back] = train.split();
        let mut best: Option<Self> = None;
        let mut start = vec![0.0; (train.width + 1) * classes];
        for penalty in PENALTIES {
            let mut fitted = Self::with(penalty, &learnt, classes, &start)?;
            fitted.chosen_by = fitted.test(&held_back).mean();
            start.clone_from(&fitted.parameters);
            if best
                .as_ref()
                .is_none_or(|best| best.chosen_by < fitted.chosen_by)
            {
                best = Some(fitted);
            }
        }
        let best = best.unwrap_or_else(|| unreachable!("there are penalties"));
        let fitted = Self::with(best.penalty, train, classes, &best.parameters)?;
        Ok(Self {
            chosen_by: best.chosen_by,
            ..fitted
        })
    }

    /// Fits from `start` on.
    fn with(penalty: f64, train: &Labelled, classes: usize, start: &[f64]) -> Result<Self, Error> {
        let failed = |error: argmin::core::Error| {
            if interrupt::requested() {
                Error::Interrupted
            } else {
                Error::Optimizer(error.into())
            }
        };
        let loss = LogisticLoss {
            train,
            classes,
            penalty,
            last: RefCell::default(),
        };
        let solver = LBFGS::new(MoreThuenteLineSearch::new(), MEMORY)
            .with_tolerance_grad(GRADIENT)
            .map_err(failed)?;
        let executor = Executor::new(loss, solver)
            .configure(|state| state.param(start.to_vec()).max_iters(STEPS))
            .timer(false);
        let mut found = executor.run().map_err(failed)?;
        Ok(Self {
            parameters: found
                .state
                .take_best_param()
                .unwrap_or_else(|| start.to_vec()),
            classes,
            penalty,
            chosen_by: 0.0,
        })
    }

    /// Of each of `test` whether it tells the class right; of equal scores the first class counts.
    pub(super) fn test(&self, test: &Labelled) -> Scores {
        let scores = scores(test, &self.parameters, self.classes);
        let rows = scores.chunks_exact(self.classes).zip(&test.classes);
        Scores::right(rows.map(|(scores, class)| {
            let best = scores.iter().enumerate().rev();
            let best = best.max_by(|(_, one), (_, other)| one.total_cmp(other));
            best.is_some_and(|(guess, _)| guess == *class as usize)
        }))
    }
}

/// `[examples, classes]`.
fn scores(examples: &Labelled, parameters: &[f64], classes: usize) -> Vec<f64> {
    let (weight, bias) = parameters.split_at(examples.width * classes);
    let count = examples.classes.len();
    let mut scores = bias.repeat(count);
    matmul(
        MatMut::from_row_major_slice_mut(&mut scores, count, classes),
        Accum::Add,
        examples.matrix(),
        MatRef::from_row_major_slice(weight, examples.width, classes),
        1.0,
        Par::rayon(0),
    );
    scores
}

/// Parameters, and the loss and its gradient there.
struct Point {
    parameters: Vec<f64>,
    loss: f64,
    gradient: Vec<f64>,
}

/// What is minimised: the mean cross-entropy, and the penalty.
struct LogisticLoss<'a> {
    train: &'a Labelled,
    classes: usize,
    penalty: f64,
    /// What was looked at last: a line search asks for a loss and its gradient one after the other.
    last: RefCell<Option<Point>>,
}

impl LogisticLoss<'_> {
    fn at(&self, parameters: &[f64]) -> Result<(f64, Vec<f64>), argmin::core::Error> {
        if interrupt::requested() {
            return Err(argmin::core::Error::msg("interrupted"));
        }
        if let Some(known) = &*self.last.borrow()
            && known.parameters == parameters
        {
            return Ok((known.loss, known.gradient.clone()));
        }
        let (count, width) = (self.train.classes.len(), self.train.width);
        let share = 1.0 / count as f64;
        let mut scores = scores(self.train, parameters, self.classes);
        let mut loss = 0.0;
        for (row, &class) in scores
            .chunks_exact_mut(self.classes)
            .zip(&self.train.classes)
        {
            let largest = row.iter().copied().fold(f64::MIN, f64::max);
            let own = row[class as usize] - largest;
            for score in row.iter_mut() {
                *score = (*score - largest).exp();
            }
            let sum: f64 = row.iter().sum();
            loss += share * (sum.ln() - own);
            for score in row.iter_mut() {
                *score *= share / sum;
            }
            row[class as usize] -= share;
        }
        let mut gradient = parameters.to_vec();
        let (weight, bias) = gradient.split_at_mut(width * self.classes);
        loss += 0.5 * self.penalty * share * weight.iter().map(|one| one * one).sum::<f64>();
        for one in weight.iter_mut() {
            *one *= self.penalty * share;
        }
        bias.fill(0.0);
        for row in scores.chunks_exact(self.classes) {
            for (sum, score) in bias.iter_mut().zip(row) {
                *sum += score;
            }
        }
        matmul(
            MatMut::from_row_major_slice_mut(weight, width, self.classes),
            Accum::Add,
            self.train.matrix().transpose(),
            MatRef::from_row_major_slice(&scores, count, self.classes),
            1.0,
            Par::rayon(0),
        );
        *self.last.borrow_mut() = Some(Point {
            parameters: parameters.to_vec(),
            loss,
            gradient: gradient.clone(),
        });
        Ok((loss, gradient))
    }
}

impl CostFunction for LogisticLoss<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, parameters: &Vec<f64>) -> Result<f64, argmin::core::Error> {
        Ok(self.at(parameters)?.0)
    }
}

impl Gradient for LogisticLoss<'_> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, parameters: &Vec<f64>) -> Result<Vec<f64>, argmin::core::Error> {
        Ok(self.at(parameters)?.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three classes in two dimensions.
    fn examples() -> Labelled {
        let rows = [
            [1.0, 0.2],
            [0.9, -0.4],
            [-1.0, 0.7],
            [-0.6, 1.1],
            [0.1, -1.0],
            [0.4, 0.3],
        ];
        Labelled::new(rows.into_iter().flatten(), &[0, 0, 1, 1, 2, 2])
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let train = examples();
        let loss = LogisticLoss {
            train: &train,
            classes: 3,
            penalty: 2.0,
            last: RefCell::default(),
        };
        let parameters: Vec<f64> = (0..9).map(|place| 0.3 * f64::from(place).sin()).collect();
        let (_, gradient) = loss.at(&parameters).expect("not interrupted");
        for place in 0..9 {
            let moved = |step: f64| {
                let mut parameters = parameters.clone();
                parameters[place] += step;
                loss.at(&parameters).expect("not interrupted").0
            };
            let difference = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((difference - gradient[place]).abs() < 1e-8, "{place}");
        }
    }

    #[test]
    fn the_optimum_has_no_slope() {
        let train = examples();
        let found = Logistic::with(1.0, &train, 3, &[0.0; 9]).expect("fitted");
        let loss = LogisticLoss {
            train: &train,
            classes: 3,
            penalty: 1.0,
            last: RefCell::default(),
        };
        let (_, gradient) = loss.at(&found.parameters).expect("not interrupted");
        assert!(gradient.iter().all(|slope| slope.abs() < 2.0 * GRADIENT));
        assert!(found.test(&train).mean() > 0.8);
    }
}
