"""Fine-tune a trained model on your own folder of images, with classes of its own.

    python scripts/examples/finetune_custom.py runs/my_data other_data runs/other_data
    python scripts/examples/finetune_custom.py user/model other_data runs/other_data --max_steps 2000

The model is a run's folder or a Hub id. Its backbone and decoder go on from their weights; the last layer is
drawn anew where the number of classes differs. The folder is laid out as docs/your_data.md says.
"""

import argparse

from transformers import AutoImageProcessor, HfArgumentParser

from pos_hf import DataArguments, PairedDataset, POSConfig, POSTrainer, build_model, load_data


def finetune(model: str, data_arguments: DataArguments, config: POSConfig) -> dict[str, float]:
    """Train on, save the result in `config.output_dir`, and score it where the folder has images for that."""
    data = load_data(data_arguments)
    trainer = POSTrainer(
        build_model(model, data.id2label, palette=data.palette),
        config,
        PairedDataset.from_arguments(data, data_arguments, config.seed),
        eval_dataset=data.test if data.test is not None else data.selection,
        processing_class=AutoImageProcessor.from_pretrained(model),  # the statistics it was trained with
    )
    trainer.train()
    trainer.save_model()
    return trainer.evaluate() if trainer.eval_dataset is not None else {}


def main(argv: list[str] | None = None) -> None:
    """Read the command line: three places, then any key of a config."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("dataset")
    parser.add_argument("output_dir")
    places, keys = parser.parse_known_args(argv)

    settings = HfArgumentParser([DataArguments, POSConfig])
    settings.set_defaults(
        dataset=places.dataset,
        output_dir=places.output_dir,
        method="fixmatch",
        learning_rate=1e-4,
        head_learning_rate_multiplier=10.0,  # the new layer has everything to learn
        max_steps=500,
        save_strategy="no",
    )
    data_arguments, config = settings.parse_args_into_dataclasses(keys)
    for key, value in finetune(places.model, data_arguments, config).items():
        print(f"{key:<40}{value:.3f}")


if __name__ == "__main__":
    main()
