"""Text: tokenizers, prompt templates, and answers as they stream."""
