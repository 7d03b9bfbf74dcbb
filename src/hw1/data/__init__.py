"""Examples: where they come from, what is done to their labels, and how they reach a training in batches.

Names are imported on first use, so that `hw1.data.source` stays free of torch.
"""

from typing import TYPE_CHECKING

from hw1.on_first_use import from_homes

if TYPE_CHECKING:
    from hw1.data.arrays import Arrays
    from hw1.data.folder import ImageFolder
    from hw1.data.functions import Function
    from hw1.data.huggingface import HuggingFace
    from hw1.data.images import Cifar10, Digits, FashionMnist, Mnist
    from hw1.data.mnist_mean import MnistMean
    from hw1.data.modular import Modular
    from hw1.data.module import DataModule
    from hw1.data.table import Table
    from hw1.data.text import Characters
    from hw1.data.torch_dataset import TorchDataset
    from hw1.data.torchvision_set import TorchvisionSet

__all__ = [
    "Arrays",
    "Characters",
    "Cifar10",
    "DataModule",
    "Digits",
    "FashionMnist",
    "Function",
    "HuggingFace",
    "ImageFolder",
    "Mnist",
    "MnistMean",
    "Modular",
    "Table",
    "TorchDataset",
    "TorchvisionSet",
]

_HOMES = {
    "Arrays": "arrays",
    "Characters": "text",
    "Cifar10": "images",
    "DataModule": "module",
    "Digits": "images",
    "FashionMnist": "images",
    "Function": "functions",
    "HuggingFace": "huggingface",
    "ImageFolder": "folder",
    "Mnist": "images",
    "MnistMean": "mnist_mean",
    "Modular": "modular",
    "Table": "table",
    "TorchDataset": "torch_dataset",
    "TorchvisionSet": "torchvision_set",
}

__getattr__, __dir__ = from_homes(__name__, _HOMES)
