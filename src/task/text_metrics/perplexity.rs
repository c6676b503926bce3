/// What a mean loss a token, in nats, comes to: among how many tokens that are equally likely the
/// model chooses. From 1.
pub fn perplexity(mean_loss: f64) -> f64 {
    mean_loss.exp()
}
