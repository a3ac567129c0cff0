"""Offline work: ``specdec-native batch MODEL IN.jsonl OUT.jsonl``."""
