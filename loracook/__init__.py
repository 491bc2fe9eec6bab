"""Declarative recipes for LoRA fine-tuning with Hugging Face TRL."""

__version__ = "0.1.0"
