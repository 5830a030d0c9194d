"""Data -> records -> a checkpoint: fine-tuning on instructions and chats."""
