"""Declarative recipes for LoRA fine-tuning with Hugging Face TRL."""
