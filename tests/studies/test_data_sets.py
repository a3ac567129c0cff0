"""The loaders of public data sets: what they take, and errors of one line that name the place."""

from __future__ import annotations

import json

import pytest

import specdec_native as sd
from specdec_native.studies import data_sets, text_metrics
from specdec_native.studies.data_sets import Sample

ALPACA = [
    {"instruction": "Name a colour.", "input": "", "output": "Blue."},
    {"instruction": "Sort these.", "input": "b a", "output": "a b"},
    {"instruction": "Say nothing.", "output": ""},
]
ALPACA_SAMPLES = [Sample("Name a colour.", "Blue."), Sample("Sort these.\nb a", "a b")]


def file(tmp_path, content, name="data.json"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_alpaca_is_the_instruction_and_the_input_below_it(tmp_path):
    lines = "".join(json.dumps(entry) + "\n" for entry in ALPACA)
    assert data_sets.alpaca(file(tmp_path, ALPACA)) == ALPACA_SAMPLES
    assert data_sets.alpaca(file(tmp_path, lines, "data.jsonl")) == ALPACA_SAMPLES


def test_wikitext_is_its_paragraphs_without_headings(tmp_path):
    text = (
        " \n = Title = \n \n First paragraph . \n = = Part = = \n a = b = c \n = = = Low = = = \n"
    )
    assert data_sets.wikitext(file(tmp_path, text)) == ["First paragraph .", "a = b = c"]


def test_articles_come_from_csv_from_json_and_from_spec_bench(tmp_path):
    expected = [Sample("Summarize the article: Rain, again.\nMore.", "It rained.")]
    table = 'id,article,highlights\n1,"Rain, again.\nMore.",It rained.\n'
    entry = {"id": "1", "article": "Rain, again.\nMore.", "highlights": "It rained."}
    bench = [
        {"category": "writing", "turns": ["Write."]},
        {
            "category": "summarization",
            "turns": ["Summarize: Rain, again.\nMore."],
            "reference": ["It rained."],
        },
    ]
    lines = "".join(json.dumps(entry) + "\n" for entry in bench)
    assert data_sets.cnn_dailymail(file(tmp_path, table, "test.csv")) == expected
    assert data_sets.cnn_dailymail(file(tmp_path, json.dumps(entry) + "\n")) == expected
    assert data_sets.cnn_dailymail(file(tmp_path, lines)) == expected


def test_questions_may_have_further_columns(tmp_path):
    table = "question,answer,label,temperature\nWhat?,That.,x,0.8\nWho?,,x,1\n"
    expected = [Sample("What?", "That."), Sample("Who?", "")]
    assert data_sets.questions(file(tmp_path, table, "qa.csv")) == expected


@pytest.mark.parametrize(
    "read,content,error",
    [
        ("alpaca", "", "line 1: expected a JSON list or JSON lines, found nothing"),
        ("alpaca", "[]", "holds no records"),
        ("alpaca", '[{"instruction": "a"', "not JSON: "),
        ("alpaca", "[" * 100_000, "not JSON: "),
        ("alpaca", "[1]", "record 1: expected a JSON object, found int"),
        ("alpaca", '[{"instruction": "a", "output": "b"}, {"output": "b"}]',
         "record 2: instruction must be text, found only 'output'"),
        ("alpaca", '{"instruction": "a", "output": "b"}\n{"instruction": 1, "output": "b"}\n',
         "line 2: instruction must be text, found int"),
        ("alpaca", '[{"instruction": " ", "output": "b"}]', "record 1: instruction is empty"),
        ("alpaca", '[{"instruction": "a", "output": ""}]', "no record with an output"),
        ("alpaca", '[{"instruction": "a", "input": null, "output": "b"}]',
         "record 1: input must be text, found nothing"),
        ("wikitext", " \n = Title = \n", "holds no paragraphs"),
        ("cnn_dailymail", '{"article": "a"}\n', "line 1: highlights must be text, found only"),
        ("cnn_dailymail", '{"category": "summarization", "turns": []}\n',
         "line 1: turns must be a list of texts"),
        ("cnn_dailymail", '{"category": "qa", "turns": ["a"]}\n',
         "no record with the category summarization"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_line(tmp_path, read, content, error):
    path = file(tmp_path, content)
    with pytest.raises(sd.InvalidArgumentError) as caught:
        getattr(data_sets, read)(path)
    assert str(path) in str(caught.value)
    assert error in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content,error",
    [
        ("question,answer\n", "holds no records"),
        ("question,answer\nWhat?\n", "line 2: answer must be text, found nothing"),
        ("question,answer\nWhat?,a,b\n", "line 2: more fields than the header's 2"),
        ('question,answer\n"What?,a\n', "line 2: unexpected end of data"),
        ("q,a\nWhat?,b\n", "line 2: question must be text, found only 'q', 'a'"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path, content, error):
    path = file(tmp_path, content, "qa.csv")
    with pytest.raises(sd.InvalidArgumentError) as caught:
        data_sets.questions(path)
    assert f"{path}" in str(caught.value)
    assert error in str(caught.value)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- text metrics


def test_overlap_of_texts_by_hand():
    pytest.importorskip("rouge_score")
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rapidfuzz")
    found = text_metrics.overlap("the cat sat", "the cat ran away")
    assert found["rouge1"] == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert found["rouge2"] == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    assert found["rougeL"] == found["rouge1"]
    assert found["edit_distance"] == 7  # s -> r, t -> n, and " away"
    assert text_metrics.bleu("a b c d e", "a b c d e") == pytest.approx(100)
    assert set(text_metrics.overlap("x", "").values()) == {None}


def test_distinct_n_by_hand():
    assert text_metrics.distinct("a b a b a", 1) == pytest.approx(2 / 5)
    assert text_metrics.distinct("a b A b a", 2) == pytest.approx(2 / 4)
    assert text_metrics.distinct("a b c", 2) == 1
    assert text_metrics.distinct("a", 2) is None
    assert text_metrics.distinct(" ", 1) is None
