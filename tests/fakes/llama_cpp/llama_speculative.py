"""A lookup of the last two tokens, from the earliest match."""


class LlamaPromptLookupDecoding:
    def __call__(self, tokens):
        tokens = [int(token) for token in tokens]
        for at in range(len(tokens) - 2):
            if tokens[at : at + 2] == tokens[-2:]:
                return tokens[at + 2 : at + 12]
        return []
