use rand::Rng;
pub fn categorical(logp: &[f64], rng: &mut impl Rng) -> usize {
    let u: f64 = rng.random();
    let mut c = 0.0;
    for (i, l) in logp.iter().enumerate() {
        c += l.exp();
        if u < c {
            return i;
        }
    }
    logp.len() - 1
}
