"""Studies: which drafter is how fast, on which prompts, with raw rows, tables, plots and a report.

``specdec-native study NAME --target T.gguf --draft D.gguf --out DIR`` runs one; `compare` answers
the short question from Python. A study needs the extra: pip install "specdec-native[studies]".
"""

from .compare import Comparison, compare

__all__ = ["Comparison", "compare"]
