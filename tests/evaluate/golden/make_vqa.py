"""Make `vqa.json` with the VQA evaluation as OpenFlamingo ships it, which the paper's scores were made with.

    pip download --no-deps open_flamingo==2.0.1 && unzip open_flamingo-2.0.1-py3-none-any.whl -d FOLDER
    python tests/evaluate/golden/make_vqa.py FOLDER

Its `vqa_metric.py` is a copy of the official evaluation (github.com/GT-Vision-Lab/VQA); references are normalised even
where all annotators agree. The answers are made up here to meet every rule: each contraction, number word, article and
mark, beside a space and inside a word, with and without a comma between digits, in either case.
"""

import contextlib
import importlib.util
import io
import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace

WORDS = [
    "red",
    "Stop Sign",
    "hot dog",
    "a cat",
    "The dog",
    "an apple",
    "t-shirt",
    "don't know",
    "10:30",
    "2.5",
    "1,000",
]
PLACES = ["{m}", "big{m}dog", "big{m} dog", "big {m}dog", "big {m} dog", "dog{m}", "{m}dog", "1,000{m}5", "a{m}b {m}c"]
ODD = [
    "",
    " ",
    "yes.",
    "...",
    "U.S.A.",
    "3.5.",
    ".5",
    "5.",
    "no\nyes",
    "no\tyes",
    " yes ",
    "\nyes\n",
    "1,000,000",
    "1 ,000",
]


def answers(evaluation) -> list[str]:
    marks = [*evaluation.punct, ".", ":", "'", "&", "%", "$", "#", "*", "~", "|", "^", "\u2019", "\u00e9"]
    words = [*evaluation.contractions, *evaluation.contractions.values(), *evaluation.manualMap, *evaluation.articles]
    found = [*ODD, *WORDS, *words, *(word.title() for word in words), *(f"the {word} is" for word in words[::4])]
    return [*found, *(place.format(m=mark) for mark in marks for place in PLACES)]


def questions(pool: list[str]) -> list[dict]:
    chance = random.Random(0)
    made = []
    for _ in range(300):
        few = chance.sample(pool, chance.randint(1, 4))
        variants = [change(answer) for answer in few for change in (str, str.lower, str.title, str.strip)]
        people = [chance.choice(variants) for _ in range(10)]
        if chance.random() < 0.2:
            people = people[:1] * 10
        made.append({"prediction": chance.choice(variants), "people": people})
    return made


def main() -> None:
    file = Path(sys.argv[1]) / "open_flamingo" / "eval" / "vqa_metric.py"
    spec = importlib.util.spec_from_file_location("vqa_metric", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    evaluation = module.VQAEval(None, None, n=12)
    pool = answers(evaluation)
    normal = [[text, evaluation.processDigitArticle(evaluation.processPunctuation(text))] for text in pool]
    made = questions(pool)
    truths = [
        {"answers": [{"answer": answer, "answer_id": n} for n, answer in enumerate(question["people"])]}
        for question in made
    ]
    evaluation.vqa = SimpleNamespace(qa={i: {**truth, "question_type": "any"} for i, truth in enumerate(truths)})
    evaluation.vqaRes = SimpleNamespace(qa={i: {"answer": question["prediction"]} for i, question in enumerate(made)})
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate(list(range(len(made))))
    golden = {
        "normal": normal,
        "questions": [{**question, "score": evaluation.evalQA[i] / 100} for i, question in enumerate(made)],
    }
    target = Path(__file__).with_name("vqa.json")
    target.write_text(json.dumps(golden, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
