"""Words of the small runs whose steps are logged."""

WORDS = (
    *("model=mlp", "model.hidden=[8]", "dataset=digits", "dataset.train_size=64", "dataset.batch_size=16"),
    *("trainer.max_epochs=3", "trainer.checkpoint_seconds=0", "trainer.progress=false", "logger=none"),
    "+callbacks.steps._target_=steps.Steps",
)
SLURM = "hydra/launcher=submitit_slurm"
