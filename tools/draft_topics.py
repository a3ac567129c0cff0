"""What make_draft.py asks chat models about: openings of user turns, which the model continues."""

from __future__ import annotations

import random

SYSTEMS = (
    "You are a helpful assistant.",
    "You are a helpful AI assistant.",
    "Answer clearly and concisely.",
    "You are an expert programmer.",
)

TOPICS = tuple(
    """the ocean; volcanoes; the history of bread; gravity; photosynthesis; a small bakery; electric
    cars; the moon; bees; the stock market; a medieval castle; machine learning; healthy
    breakfast; a rainy day; the Roman Empire; vaccines; basketball; the violin; solar panels;
    a lost dog; time travel; a job interview; gardening; chess; the water cycle; an old
    lighthouse; sleep; inflation; dinosaurs; Paris; mountain climbing; recycling; poetry; a
    family dinner; black holes; coffee; public libraries; the immune system; bicycles; a
    robot; online shopping; climate change; a school trip; the printing press; tea; jazz;
    earthquakes; a startup; the human heart; penguins; space travel; a broken promise; city
    parks; nutrition; computer networks; the desert; trains; a secret letter; democracy; yoga;
    whales; smartphones; an island; probability; the French Revolution; pasta; museums;
    friendship; remote work; wildfires; a detective; statistics; the Amazon rainforest;
    running; languages; a magic mirror; bridges; antibiotics; birds; movies; the Silk Road;
    budgeting; winter; algorithms; planets; art; football; a pirate ship; renewable energy;
    cooking rice; the brain; social media; rivers; airplanes; ethics; a wedding; databases;
    Japan; insects; music theory; taxes; the weather; leadership; a haunted house; chemistry;
    India; horses; trade; sculpture; the internet; a village market; exercise; mathematics;
    the Cold War; clouds; public speaking; a farmer; genetics; hotels; negotiation; tigers;
    philosophy; glass; stress; a new neighbour; water pollution; a birthday party; the
    telephone; forests; marketing; comets; a grandmother; Brazil; law; reading habits;
    elephants; a science fair; engines; theatre; memory; salt; teaching children; maps""".replace(
        "\n", " "
    ).split(";")
)

# {t} stands for a topic; what ends without a full stop is continued by the model.
OPENINGS: dict[str, tuple[str, ...]] = {
    "write": (
        "Write a short story about {t}",
        "Write a poem about {t}.",
        "Write an email to my boss about {t}",
        "Write a blog post about {t}.",
        "Write a persuasive essay about {t}",
        "Compose a letter about {t}",
        "Draft a product description for {t}",
        "Create a dialogue between two people about {t}.",
        "Come up with five questions about {t}.",
        "Give me some ideas for {t}",
        "Describe {t} in vivid detail.",
    ),
    "explain": (
        "Explain {t} in simple terms.",
        "Explain how {t}",
        "What is the difference between {t} and",
        "What are the advantages and disadvantages of {t}?",
        "How does {t}",
        "Why is {t}",
        "Can you tell me more about {t}?",
        "What are the most important facts about {t}?",
        "I would like to learn about {t}. Where should I start?",
        "Discuss the impact of {t} on",
        "List the main",
    ),
    "question": (
        "Who was",
        "Who invented",
        "When did",
        "When was the first",
        "Where is",
        "What is the name of",
        "What is the capital of",
        "How many",
        "Which",
        "What year did",
        "who sings the song",
        "where does the word",
        "what is the meaning of",
        "how long does it take",
    ),
    "maths": (
        "Solve the following math problem step by step:",
        "A farmer has",
        "A train travels",
        "John has",
        "Sarah bought",
        "If a shop sells",
        "What is the sum of",
        "Calculate",
        "There are",
        "Maria earns",
        "A recipe needs",
        "Find the value of x if",
        "In a class of",
    ),
    "code": (
        "Write a Python function that",
        "Write a Python program to",
        "Implement a function in C++ that",
        "Write a JavaScript function to",
        "Write a SQL query that",
        "Fix the bug in this code:\n\n```python\n",
        "Explain what this code does:\n\n```python\n",
        "Complete the following Python function:\n\ndef",
        "How do I",
        "Write an HTML page that",
    ),
    "rewrite": (
        "Rewrite the following sentence in a formal tone:",
        "Correct the grammar of this sentence:",
        "Paraphrase the following paragraph:",
        "Make this text shorter:",
        "Turn the following notes into an email:",
        "Extract the names and dates from the following text:",
        "Classify the sentiment of this review:",
    ),
    "translate": (
        "Translate German to English:",
        "Translate the following sentence into Spanish:",
        "Translate to French:",
        "Translate the following text from Spanish to English:",
        "How do you say",
    ),
    "summarise": (
        "Summarize the following article:\n\n",
        "Summarize: (CNN)",
        "Summarize: A man",
        "Summarize: LONDON --",
        "Give a one sentence summary of this text:",
        "Summarize the main points of the following passage about {t}:",
        "Read the text and answer the question. Text:",
    ),
    "role": (
        "Imagine you are",
        "Pretend to be",
        "You are a teacher. Explain {t} to",
        "Act as a travel guide and",
        "As a doctor, what would you",
        "Suppose you could",
        "Please assume the role of",
        "Describe how you would",
    ),
}
# What answers are about; the rest is left to the model.
SHARES = {
    "free": 0.2,
    "write": 0.14,
    "explain": 0.14,
    "question": 0.12,
    "maths": 0.1,
    "code": 0.08,
    "rewrite": 0.06,
    "translate": 0.04,
    "summarise": 0.07,
    "role": 0.05,
}


def opening(rng: random.Random) -> tuple[str, str]:
    """What a user turn is about, and how it begins ("" leaves it to the model)."""
    kind = rng.choices(list(SHARES), list(SHARES.values()))[0]
    if kind == "free":
        return kind, ""
    text = rng.choice(OPENINGS[kind]).replace("{t}", rng.choice(TOPICS).strip())
    return kind, text
