"""Fine-tuning on instructions and chats: reads data, trains, and writes checkpoints."""
