"""Transformers' own tests of loading, run twice: with its `from_pretrained`, and with ours."""

# Tests that pass with stock and do not with the reference in its place, and why.
OTHERWISE = {
    "test_model_weights_reload_no_missing_tied_weights": "it loads a file of one key that the "
    "model does not have, and expects a random model; the specification refuses that (MAP-7)",
}

NOT_SHIPPED = "the tests of each model, of generation and of export"
