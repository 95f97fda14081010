//! The smallest world: a context, an arm, a reward. The policy is one softmax over arms for each context, in f64, so
//! that what the ordinary trainer does can be compared with the closed form of [`rebel_theory`].

use super::{Ask, Cotangents, Group, Outputs, Trajectory, World, mismatched};
use crate::nn::{Choice, Purpose, Sampling, Store, Streams, choose};
use crate::reward::Score;
use crate::{Error, Result};
use candle_core::{D, DType, Device, Tensor};
use ndarray::Array2;

/// Name of the one parameter, `[contexts, arms]`.
pub const LOGITS: &str = "policy.logits";

const ROLLOUT: Purpose = Purpose("rollout");

/// A tabular softmax policy. The reference policy is the one it was made with.
#[derive(Debug)]
pub struct Bandit {
    store: Store,
    reference: Array2<f64>,
}

impl Bandit {
    /// A policy with these `logits`, `[contexts, arms]`.
    ///
    /// # Errors
    /// When there is no context or no arm.
    pub fn new(logits: &Array2<f64>) -> Result<Self> {
        let (contexts, arms) = logits.dim();
        if contexts == 0 || arms == 0 {
            return Err(Error::invalid(format!(
                "a bandit of {contexts} contexts and {arms} arms (expected at least 1)"
            )));
        }
        let flat: Vec<f64> = logits.iter().copied().collect();
        let mut store = Store::new(DType::F64, &Device::Cpu);
        store.insert(LOGITS, &Tensor::from_vec(flat, (contexts, arms), &Device::Cpu)?)?;
        let mut bandit = Self { store, reference: logits.clone() };
        bandit.reference = bandit.log_policy()?;
        Ok(bandit)
    }

    /// `ln pi(arm | context)` under the current parameters, `[contexts, arms]`.
    ///
    /// # Errors
    /// When candle fails.
    pub fn log_policy(&self) -> Result<Array2<f64>> {
        let all = self.log_softmax(&self.logits()?.detach())?;
        let (contexts, arms) = all.dims2()?;
        let flat = all.flatten_all()?.to_vec1::<f64>()?;
        Ok(Array2::from_shape_vec((contexts, arms), flat).expect("as many as there are"))
    }

    fn logits(&self) -> Result<Tensor> {
        let (contexts, arms) = self.reference.dim();
        self.store.get(LOGITS, &[contexts, arms])
    }

    fn log_softmax(&self, logits: &Tensor) -> Result<Tensor> {
        Ok(candle_nn::ops::log_softmax(logits, D::Minus1)?)
    }

    /// A given draw, without random numbers: arm `arm` in context `context`, as sample number `sample`.
    ///
    /// # Errors
    /// When there is no such arm or context.
    pub fn draw(&self, context: usize, arm: usize, sample: u64) -> Result<Trajectory<Pull>> {
        let policy = self.log_policy()?;
        let at = (context, arm);
        let (Some(&old), Some(&reference)) = (policy.get(at), self.reference.get(at)) else {
            return Err(Error::invalid(format!("arm {arm} of context {context} does not exist in {:?}", policy.dim())));
        };
        let record = Pull { context, arm };
        let (old, reference) = (vec![old], vec![reference]);
        Ok(Trajectory { prompt: context as u64, sample, record, steps: 1, old, reference, ended: true })
    }

    /// Every unordered pair of arms of every context, each once: a batch whose pairs connect all arms, so that the
    /// minimiser of REBEL's loss on it is the exact mirror-descent step.
    ///
    /// # Errors
    /// When candle fails.
    pub fn all_pairs(&self, reward: &Array2<f64>) -> Result<Vec<Group<Pull>>> {
        let (contexts, arms) = self.reference.dim();
        let mut groups = vec![];
        for context in 0..contexts {
            for first in 0..arms {
                for second in first + 1..arms {
                    let trajectories = vec![self.draw(context, first, 0)?, self.draw(context, second, 1)?];
                    groups.push(Group {
                        trajectories,
                        rewards: vec![reward[[context, first]], reward[[context, second]]],
                    });
                }
            }
        }
        Ok(groups)
    }
}

/// What was pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pull {
    pub context: usize,
    pub arm: usize,
}

impl World for Bandit {
    /// The context.
    type Prompt = usize;
    type Record = Pull;
    type Graph = Tensor;

    fn rollout(
        &self,
        prompts: &[(u64, &usize)],
        k: usize,
        streams: &Streams,
        step: u64,
    ) -> Result<Vec<Vec<Trajectory<Pull>>>> {
        let logits = self.logits()?.detach(); // [contexts, arms]
        let contexts = logits.dim(0)?;
        let mut drawn = vec![];
        for &(prompt, &context) in prompts {
            if context >= contexts {
                return Err(Error::invalid(format!("context {context} of {contexts} does not exist")));
            }
            let rows = logits.get(context)?.unsqueeze(0)?.repeat((k, 1))?; // [k, arms]
            let mut own: Vec<_> = (0..k as u64).map(|sample| streams.stream(ROLLOUT, step, prompt, sample)).collect();
            let arms = choose(&rows, Choice::Sample(Sampling::ONE), &mut own)?;
            let of_prompt = arms.iter().enumerate().map(|(sample, &(arm, _))| {
                Ok(Trajectory { prompt, ..self.draw(context, arm as usize, sample as u64)? })
            });
            drawn.push(of_prompt.collect::<Result<_>>()?);
        }
        Ok(drawn)
    }

    fn outputs(&self, trajectories: &[&Trajectory<Pull>], ask: Ask) -> Result<(Outputs, Tensor)> {
        if ask != Ask::LogProbabilities {
            return Err(Error::invalid("a bandit's policy has log-probabilities only"));
        }
        let rows = trajectories.len();
        let contexts: Vec<u32> = trajectories.iter().map(|t| t.record.context as u32).collect();
        let arms: Vec<u32> = trajectories.iter().map(|t| t.record.arm as u32).collect();
        let all = self.log_softmax(&self.logits()?)?; // [contexts, arms]
        let of_row = all.index_select(&Tensor::new(contexts, all.device())?, 0)?; // [rows, arms]
        let chosen = of_row.gather(&Tensor::new(arms, all.device())?.reshape((rows, 1))?, 1)?; // [rows, 1]
        let detached = of_row.detach();
        let entropy = (detached.exp()? * &detached)?.sum(D::Minus1)?.neg()?.to_vec1::<f64>()?;
        let column = |values: Vec<f64>| Array2::from_shape_vec((rows, 1), values).expect("one step a row");
        let values = column(chosen.flatten_all()?.to_vec1::<f64>()?);
        let outputs = Outputs::LogProbabilities { values, mask: Array2::ones((rows, 1)), entropy: column(entropy) };
        Ok((outputs, chosen))
    }

    fn pull(&mut self, graph: Tensor, cotangents: &Cotangents) -> Result<()> {
        let Cotangents::LogProbabilities(of) = cotangents else { return Err(mismatched()) };
        let of = Tensor::from_iter(of.iter().copied(), graph.device())?.reshape(graph.shape())?;
        let gradients = (graph * of)?.sum_all()?.backward()?;
        self.store.accumulate(gradients)
    }

    fn store(&mut self) -> &mut Store {
        &mut self.store
    }
}

/// The reward table of a bandit, without noise. `[contexts, arms]`
#[derive(Debug)]
pub struct Table {
    reward: Array2<f64>,
    queries: u64,
}

impl Table {
    /// Scores arms by `reward`.
    pub fn new(reward: Array2<f64>) -> Self {
        Self { reward, queries: 0 }
    }
}

impl Score<Pull> for Table {
    fn score(&mut self, trajectories: &[&Trajectory<Pull>]) -> Result<Vec<f64>> {
        self.queries += trajectories.len() as u64;
        let of = |pull: Pull| self.reward.get((pull.context, pull.arm)).copied();
        trajectories
            .iter()
            .map(|t| of(t.record).ok_or_else(|| Error::invalid(format!("the table has no {:?}", t.record))))
            .collect()
    }

    fn queries(&self) -> u64 {
        self.queries
    }
}
