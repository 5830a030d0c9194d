# /// script
# dependencies = ["openai>=2", "pydantic>=2"]
# ///
"""The OpenAI package for Python, as https://github.com/openai/openai-python shows it."""

from feature import report
from openai_features import formats, responses, text, tools  # noqa: F401 - they try the features

if __name__ == "__main__":
    report("openai")
