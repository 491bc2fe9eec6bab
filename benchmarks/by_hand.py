"""The job of training.py as one writes it by hand with TRL: python by_hand.py MODEL ROWS OUTPUT STEPS."""

import json
import sys

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

model, rows, output, steps = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(model)
trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(model, dtype="bfloat16"),
    args=SFTConfig(
        output_dir=output,
        use_cpu=not torch.cuda.is_available(),
        max_steps=int(steps),
        per_device_train_batch_size=4,
        learning_rate=2e-4,
        lr_scheduler_type="cosine",
        warmup_steps=0.03,
        max_length=512,
        activation_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        seed=42,
    ),
    train_dataset=load_dataset("json", data_files=rows, split="train"),
    processing_class=tokenizer,
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
)
trainer.train()
trainer.save_model(f"{output}/adapter")
with open(f"{output}/losses.json", "w") as file:
    json.dump([entry["loss"] for entry in trainer.state.log_history if "loss" in entry], file)
