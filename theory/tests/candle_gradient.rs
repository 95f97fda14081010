//! The loss that candle differentiates is the loss whose minimiser is known in closed form.
#![cfg(feature = "candle")]

use candle_core::{D, DType, Device, Tensor, Var};
use ndarray::{Array1, Array2, arr1, arr2, s};
use rebel_theory::bandit::{Bandit, Policy};
use rebel_theory::objective::{Eta, rebel};
use rebel_theory::solve::linear::{pseudo_solve, spectrum};
use rebel_theory::solve::mirror::tilt;
use rebel_theory::solve::natural::tabular_fisher;

/// candle's f64 gradient in the logits of equation (1), exactly averaged over x ~ rho, y ~ pi_t, y' ~ pi_t.
fn gradient_by_candle(bandit: &Bandit, pi: &Policy, theta: &Array2<f64>, eta: f64) -> Array2<f64> {
    let (contexts, arms) = theta.dim();
    let logits: Vec<f64> = theta.iter().copied().collect();
    let theta = Var::from_tensor(&Tensor::from_vec(logits, (contexts, arms), &Device::Cpu).unwrap()).unwrap();
    let (mut at, mut weight, mut reward) = (vec![], vec![], vec![]);
    for x in 0..contexts {
        for y in 0..arms {
            for z in 0..arms {
                at.extend([(x * arms + y) as u32, (x * arms + z) as u32]);
                let w = bandit.weights()[x] * pi.prob()[[x, y]] * pi.prob()[[x, z]];
                weight.extend([w.sqrt(), w.sqrt()]); // the loss squares what it is given
                reward.extend([bandit.reward()[[x, y]], bandit.reward()[[x, z]]]);
            }
        }
    }
    let pairs = at.len() / 2;
    let tensor = |v: Vec<f64>| Tensor::from_vec(v, (pairs, 2), &Device::Cpu).unwrap();
    let weight = tensor(weight);
    let at = Tensor::new(at, &Device::Cpu).unwrap();
    let all = candle_log_softmax(theta.as_tensor()).flatten_all().unwrap();
    let new = all.index_select(&at, 0).unwrap().reshape((pairs, 2)).unwrap();
    let weighted = |t: &Tensor| (t * &weight).unwrap();
    let loss =
        rebel(&weighted(&new), &weighted(&new.detach()), &weighted(&tensor(reward)), Eta::new(eta).unwrap()).unwrap();
    assert_eq!(loss.dtype(), DType::F64);
    let gradient = loss.backward().unwrap().get(&theta).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    Array2::from_shape_vec((contexts, arms), gradient).unwrap()
}

fn candle_log_softmax(logits: &Tensor) -> Tensor {
    logits.broadcast_sub(&logits.log_sum_exp(D::Minus1).unwrap().unsqueeze(1).unwrap()).unwrap()
}

#[test]
fn candle_gradient_preconditioned_by_fisher_is_the_mirror_descent_step() {
    let theta = arr2(&[[0.4, -1.0, 0.3, 0.0], [1.5, 0.0, -0.5, 0.2], [0.0, 0.0, 0.0, 2.0]]);
    let reward = arr2(&[[1.0, 0.0, -2.0, 0.5], [0.3, 0.3, 0.1, -1.0], [5.0, 1.0, 1.0, 0.0]]);
    let bandit = Bandit::new(arr1(&[0.2, 0.5, 0.3]), reward.clone()).unwrap();
    let pi = Policy::from_logits(&theta);
    let fisher = tabular_fisher(&bandit, &pi);
    for eta in [0.3, 1.0, 4.0] {
        // at theta_t the gradient of (1) is -(4/eta) grad J, so the natural step eta F^+ grad J is -(eta^2/4) F^+ of it
        let gradient = gradient_by_candle(&bandit, &pi, &theta, eta);
        let mut moved = theta.clone();
        for x in 0..theta.nrows() {
            let block = spectrum("fisher", &fisher.slice(s![x, .., ..]).to_owned()).unwrap();
            let slope: Array1<f64> = gradient.row(x).to_owned() * (-eta * eta / 4.0);
            let mut row = moved.row_mut(x);
            row += &pseudo_solve(&block, &slope).solution;
        }
        let error = Policy::from_logits(&moved).distance(&tilt(&pi, &reward, eta));
        assert!(error < 1e-12, "eta {eta}: {error:e}");
    }
}

#[test]
fn without_the_fisher_matrix_the_same_gradient_does_not_reach_it() {
    let theta = arr2(&[[0.4, -1.0, 0.3]]);
    let reward = arr2(&[[1.0, 0.0, -2.0]]);
    let bandit = Bandit::new(arr1(&[1.0]), reward.clone()).unwrap();
    let pi = Policy::from_logits(&theta);
    let plain = &theta - &(gradient_by_candle(&bandit, &pi, &theta, 1.0) / 4.0);
    assert!(Policy::from_logits(&plain).distance(&tilt(&pi, &reward, 1.0)) > 0.05);
}
