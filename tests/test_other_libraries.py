"""Networks of timm and HuggingFace by YAML alone. Neither library is a dependency of hw1."""

import pytest
import torch

from composed import plain, trained
from hw1.settings import ConfigError, RunSettings
from hw1.studies.between import Part, values_of
from hw1.training import build

torch.set_num_threads(1)

QUICK = ("trainer.progress=false", "logger=none", "callbacks=none", "trainer.max_epochs=1", "init=shared")
TOKENS = (*QUICK, "dataset=modular", "dataset.p=5", "dataset.batch_size=6")
SMALL = {
    "vocab_size": 6,
    "n_positions": 3,
    "n_embd": 8,
    "n_layer": 1,
    "n_head": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def settings_of(words, model, **dataset):
    base = plain(*words)
    return RunSettings.check({**base, "model": model, "dataset": {**base["dataset"], **dataset}})


def _trained_and_interpolated(folder, model, *words, **dataset):
    """Two runs of a network, and the loss on the line between them, which ends in what they recorded."""
    one, two = (
        trained(settings_of((*words, f"optimizer.lr={rate}"), model, **dataset), folder) for rate in (1e-2, 1e-3)
    )
    table = values_of(Part(0, (one.path, two.path), 0, "test", [0.0, 0.5, 1.0]))
    losses = [run.metrics()["test/loss"] for run in (one, two)]
    assert table["loss"].tolist()[::2] == pytest.approx(losses, rel=1e-4)
    return one


def config(name, **settings):
    return {"_target_": f"transformers.{name}", **settings}


@pytest.mark.parametrize("head", ["GPT2LMHeadModel", "AutoModelForCausalLM.from_config"])
def test_a_gpt2_of_huggingface(head, tmp_path):
    pytest.importorskip("transformers", reason="no dependency of hw1: pip install transformers")
    inner = config("GPT2Config", **SMALL, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    run = _trained_and_interpolated(tmp_path, config(head, config=inner), *TOKENS)
    assert next(iter(run.net().state_dict())) == "transformer.wte.weight" and "test/perplexity" in run.metrics()


def test_measures_of_a_huggingface_network(tmp_path):
    pytest.importorskip("transformers", reason="no dependency of hw1: pip install transformers")
    from hw1.measures import Predictions, Sensitivity, Sharpness, Spectrum, Subject, Weights

    settings = settings_of(TOKENS, config("GPT2LMHeadModel", config=config("GPT2Config", **SMALL)))
    data = build.datamodule(settings.dataset)
    data.setup()
    subject = Subject([Weights(0, "training", [build.network(settings, data).eval()])], data.loss, data, 0)
    for measure in (Predictions(), Sensitivity(), Sharpness(8, 0.01, 6, None), Spectrum(8, 2, 4, None)):
        values = measure.take(subject, {}).values
        assert values and all(torch.tensor(found).isfinite().all() for found in values.values())


def test_a_bert_reads_sequences_as_classes(tmp_path):
    pytest.importorskip("transformers", reason="no dependency of hw1: pip install transformers")
    sizes = {"vocab_size": 7, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert = config("BertConfig", **sizes, intermediate_size=8, max_position_embeddings=8, num_labels=3)
    node = config("BertForSequenceClassification", config=bert)
    _trained_and_interpolated(tmp_path, node, *QUICK, "dataset=digits", _target_="made_sequences.MadeSequences")
    more = {**node, "config": {**bert, "num_labels": 4}}
    with pytest.raises(ConfigError, match=r"BertForSequenceClassification with outputs \[B, 4\], expected \[B, 3\]"):
        build.validate(settings_of((*QUICK, "dataset=digits"), more, _target_="made_sequences.MadeSequences"), tmp_path)
    headless = config("BertModel", config=bert)
    with pytest.raises(ConfigError, match=r"transformers\.BertModel: got outputs of type .*something with \.logits"):
        build.validate(
            settings_of((*QUICK, "dataset=digits"), headless, _target_="made_sequences.MadeSequences"), tmp_path
        )


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_networks_of_timm(name, tmp_path):
    pytest.importorskip("timm", reason="no dependency of hw1: pip install timm")
    node = {"_target_": "timm.create_model", "model_name": name, "num_classes": 3}
    node |= {"img_size": 32, "embed_dim": 24, "depth": 1, "patch_size": 8} if "vit" in name else {"in_chans": 3}
    images = {"_target_": "made_images.MadeImages", "size": 32, "classes": 3}
    settings = settings_of((*QUICK, "dataset=digits"), node, **images)
    build.validate(settings, tmp_path)
    if "vit" in name:
        _trained_and_interpolated(tmp_path, node, *QUICK, "dataset=digits", **images)
