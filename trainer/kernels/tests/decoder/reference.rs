//! The decoder by its definition: plain loops in f64, one sequence at a time. Nothing here is shared with the kernels.

use rebel_kernels::decoder::shape::Packing;
use rebel_kernels::decoder::{Linear, Model, Norm, Shape};
use rebel_kernels::rows::Activation;

type Row = Vec<f64>;

fn linear(map: &Linear<Vec<f64>>, x: &Row) -> Row {
    let apply = |weight: &[f64], x: &Row| -> Row {
        weight.chunks_exact(x.len()).map(|line| line.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
    };
    let mut y = apply(&map.weight, x);
    if let Some(bias) = &map.bias {
        y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
    }
    if let Some(adapter) = &map.adapter {
        let low = apply(&adapter.down, x);
        let more = apply(&adapter.up, &low);
        y.iter_mut().zip(more).for_each(|(y, m)| *y += f64::from(adapter.scaling) * m);
    }
    y
}

fn norm(norm: &Norm<Vec<f64>>, eps: f64, x: &[f64]) -> Row {
    let n = x.len() as f64;
    let mean = if norm.bias.is_some() { x.iter().sum::<f64>() / n } else { 0.0 };
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    let scale = 1.0 / (variance + eps).sqrt();
    let y = |i: usize| (x[i] - mean) * scale * norm.gain[i] + norm.bias.as_ref().map_or(0.0, |b| b[i]);
    (0..x.len()).map(y).collect()
}

/// The error function by its series and its continued fraction.
fn erf(x: f64) -> f64 {
    if x.abs() < 2.5 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let a = x.abs();
    let mut fraction = 0.0;
    for k in (1..60).rev() {
        fraction = 0.5 * f64::from(k) / (a + fraction);
    }
    x.signum() * (1.0 - (-a * a).exp() / ((a + fraction) * std::f64::consts::PI.sqrt()))
}

fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
    }
}

/// Final states of one sequence.
pub fn states(shape: &Shape, model: &Model<Vec<f64>>, tokens: &[u32]) -> Vec<Row> {
    let eps = f64::from(shape.eps);
    let mut xs: Vec<Row> =
        tokens.iter().map(|&t| model.embedding[t as usize * shape.width..][..shape.width].to_vec()).collect();
    for (layer, block) in model.blocks.iter().enumerate() {
        let (dim, group) = (shape.head_dim, shape.heads / shape.kv_heads);
        // For each row: queries, keys and values by head.
        let rows: Vec<[Vec<Row>; 3]> = xs
            .iter()
            .enumerate()
            .map(|(position, x)| {
                let y = norm(&block.attention_norm, eps, x);
                let mut parts: [Vec<Row>; 3] = match shape.packing {
                    Packing::PerHead => {
                        let all = linear(&block.projections[0], &y);
                        let part =
                            |i: usize| (0..shape.heads).map(|h| all[(3 * h + i) * dim..][..dim].to_vec()).collect();
                        [part(0), part(1), part(2)]
                    }
                    Packing::PerPart => [0, 1, 2]
                        .map(|i| linear(&block.projections[i], &y).chunks_exact(dim).map(<[f64]>::to_vec).collect()),
                };
                for (part, heads) in parts.iter_mut().enumerate().take(2) {
                    for head in heads {
                        if let Some(gains) = &block.head_norms {
                            let of = Norm { gain: gains[part].clone(), bias: None };
                            *head = norm(&of, eps, head);
                        }
                        let half = shape.frequencies.len();
                        for (i, &f) in shape.frequencies.iter().enumerate() {
                            let (sin, cos) = f64::from(position as f32 * f).sin_cos();
                            let (a, b) = (head[i], head[i + half]);
                            (head[i], head[i + half]) = (a * cos - b * sin, b * cos + a * sin);
                        }
                    }
                }
                parts
            })
            .collect();
        xs = xs
            .iter()
            .enumerate()
            .map(|(i, x)| {
                let mut context = Vec::new();
                let first = shape.windows[layer].map_or(0, |w| (i + 1).saturating_sub(w));
                for h in 0..shape.heads {
                    let dot = |a: &Row, b: &Row| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                    let score = |j: usize| dot(&rows[i][0][h], &rows[j][1][h / group]) / (dim as f64).sqrt();
                    let max = (first..=i).map(score).fold(f64::MIN, f64::max);
                    let weights: Vec<f64> = (first..=i).map(|j| (score(j) - max).exp()).collect();
                    let sum: f64 = weights.iter().sum();
                    let mixed = |d: usize| {
                        let of = |(k, w): (usize, &f64)| w / sum * rows[first + k][2][h / group][d];
                        weights.iter().enumerate().map(of).sum::<f64>()
                    };
                    context.extend((0..dim).map(mixed));
                }
                let attended = linear(&block.out, &context);
                let mid: Row = x.iter().zip(&attended).map(|(x, a)| x + a).collect();
                let y = norm(&block.mlp_norm, eps, if shape.parallel { x } else { &mid });
                let up = linear(&block.up, &y);
                let g: Row = match &block.gate {
                    None => up.iter().map(|&u| activate(shape.activation, u)).collect(),
                    Some(gate) => {
                        linear(gate, &y).iter().zip(&up).map(|(&g, u)| activate(shape.activation, g) * u).collect()
                    }
                };
                mid.iter().zip(linear(&block.down, &g)).map(|(m, d)| m + d).collect()
            })
            .collect();
    }
    xs.iter().map(|x| norm(&model.final_norm, eps, x)).collect()
}

/// Log-probability of each response token after the prompt, and entropy of its distribution.
pub fn scores(
    shape: &Shape,
    model: &Model<Vec<f64>>,
    tied: bool,
    prompt: &[u32],
    response: &[u32],
    divisor: f64,
) -> Vec<(f64, f64)> {
    let whole = [prompt, response].concat();
    let states = states(shape, model, &whole[..whole.len() - 1]);
    let own = Linear { weight: model.embedding.clone(), bias: None, adapter: None };
    let head = if tied { &own } else { model.head.as_ref().expect("a head") };
    (prompt.len() - 1..whole.len() - 1)
        .map(|i| {
            let z: Row = linear(head, &states[i]).iter().map(|z| z / divisor).collect();
            let max = z.iter().copied().fold(f64::MIN, f64::max);
            let log_sum = max + z.iter().map(|z| (z - max).exp()).sum::<f64>().ln();
            let entropy = z.iter().map(|z| -(z - log_sum).exp() * (z - log_sum)).sum();
            (z[whole[i + 1] as usize] - log_sum, entropy)
        })
        .collect()
}
