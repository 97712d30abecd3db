"""Cases for worker/trainer/tasks/metrics.h and analysis/benchmarks.h and what their scores are, as JSON on standard
output.

The expected values come from the definitions, written here in exact fractions and with nothing but Python's own
library; nothing here knows the C++ code. `tests/unit/trainer_data/metrics_cases.json` is this script's output, on a
Python whose Unicode version is the one named in it. With `--check-against-sklearn` the same cases are scored by
scikit-learn and scipy and the largest differences printed: exit code 1 if one is above 1e-12, 77 (skipped) where they
are not installed."""

import argparse
import collections
import fractions
import hashlib
import json
import math
import pathlib
import random
import re
import string
import sys
import unicodedata
import warnings

TOLERANCE = 1e-12
UNPARSED = -1


# ---- Definitions


def share(numerator, denominator):
    return float(fractions.Fraction(numerator, denominator)) if denominator else 0.0


def mean(values):
    return float(sum(map(fractions.Fraction, values)) / len(values))


def accuracy(gold, predicted):
    return mean([g == p for g, p in zip(gold, predicted)])


def class_f1(gold, predicted, label):
    """The harmonic mean of precision and recall, as an exact fraction; 0 if nothing of the class was found."""
    hits = sum(g == label == p for g, p in zip(gold, predicted))
    if hits == 0:
        return fractions.Fraction(0)
    precision = fractions.Fraction(hits, predicted.count(label))
    recall = fractions.Fraction(hits, gold.count(label))
    return 2 * precision * recall / (precision + recall)


def opposite_of_gold(gold, predicted):
    return [1 - g if p == UNPARSED else p for g, p in zip(gold, predicted)]


def binary_f1(gold, predicted, positive):
    return float(class_f1(gold, opposite_of_gold(gold, predicted), positive))


def macro_f1(gold, predicted, classes):
    return float(sum(class_f1(gold, predicted, label) for label in range(classes)) / classes)


def correlation(covariance, variance, other):
    """covariance / sqrt(variance * other) of exact fractions, rounded at the end only."""
    if variance == 0 or other == 0:
        return 0.0
    return math.copysign(math.sqrt(covariance * covariance / (variance * other)), covariance)


def matthews(gold, predicted):
    """Gorodkin's R_K: the correlation of the indicators of all classes, their covariances summed."""
    n = len(gold)

    def covariance(a, b):
        return sum(fractions.Fraction(sum(x == k == y for x, y in zip(a, b)), n)
                   - fractions.Fraction(a.count(k), n) * fractions.Fraction(b.count(k), n) for k in set(a) | set(b))

    return correlation(covariance(gold, predicted), covariance(gold, gold), covariance(predicted, predicted))


def pearson(x, y):
    x, y = ([fractions.Fraction(v) for v in values] for values in (x, y))
    x, y = ([v - sum(values) / len(values) for v in values] for values in (x, y))
    return correlation(sum(a * b for a, b in zip(x, y)), sum(a * a for a in x), sum(b * b for b in y))


def average_ranks(values):
    return [sum(other < v for other in values) + fractions.Fraction(sum(other == v for other in values) + 1, 2)
            for v in values]


def spearman(x, y):
    return pearson(average_ranks(x), average_ranks(y))


def normalised_words(text):
    """SQuAD v1.1: lower case, ASCII punctuation taken out, articles taken out as whole words, split at white space."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(?:an?|the)\b", " ", bare).split()


def word_f1(prediction, reference):
    common = sum((collections.Counter(prediction) & collections.Counter(reference)).values())
    if common == 0:
        return 0.0
    precision, recall = fractions.Fraction(common, len(prediction)), fractions.Fraction(common, len(reference))
    return float(2 * precision * recall / (precision + recall))


def answer_score(prediction, references):
    words = normalised_words(prediction)
    references = [normalised_words(r) for r in references]
    return {"exact_match": float(words in references), "f1": max(word_f1(words, r) for r in references)}


def question_exact_match(gold, predicted, question):
    return mean([all(g == p for g, p, q in zip(gold, predicted, question) if q == one) for one in set(question)])


MASK = 2**64 - 1


def mix64(z):
    z = (z + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def draws(seed, resample, count):
    """`count` numbers below `count`: splitmix64 on a counter, then Lemire's multiplication with rejection."""
    state = mix64(mix64(mix64(seed) ^ resample))
    while True:
        product = (mix64(state) >> 32) * count
        state = (state + 1) & MASK
        if product % 2**32 >= 2**32 % count:
            yield product >> 32


def bootstrap_error(examples, groups, resamples, seed, statistic):
    members = collections.defaultdict(list)
    for example in range(examples):
        members[groups[example] if groups else example].append(example)
    lists = list(members.values())
    if len(lists) < 2:
        return None
    values = []
    for resample in range(resamples):
        numbers = draws(seed, resample, len(lists))
        drawn = [example for _ in lists for example in lists[next(numbers)]]
        values.append(fractions.Fraction(statistic(drawn)))
    centre = sum(values) / resamples
    return math.sqrt(sum((v - centre) ** 2 for v in values) / (resamples - 1))


GLUE = {"glue_cola": ["matthews"], "glue_sst2": ["accuracy"], "glue_mrpc": ["accuracy", "f1"],
        "glue_stsb": ["pearson", "spearman"], "glue_qqp": ["accuracy", "f1"],
        "glue_mnli": ["matched_accuracy", "mismatched_accuracy"], "glue_qnli": ["accuracy"], "glue_rte": ["accuracy"],
        "glue_wnli": ["accuracy"]}
SUPER_GLUE = {"superglue_boolq": ["accuracy"], "superglue_cb": ["accuracy", "f1_macro"],
              "superglue_copa": ["accuracy"], "superglue_multirc": ["f1a", "exact_match"],
              "superglue_record": ["f1", "exact_match"], "superglue_rte": ["accuracy"],
              "superglue_wic": ["accuracy"], "superglue_wsc": ["accuracy"]}
SQUAD_METRICS = {"mean": ["exact_match", "f1"], "exact_match": ["exact_match"], "f1": ["f1"]}


def average_scores(scores, with_wnli, squad):
    def mean_or_none(values):
        return None if None in values else mean(values)

    def task_values(tasks):
        return [mean_or_none([scores.get((task, metric)) for metric in metrics]) for task, metrics in tasks.items()
                if with_wnli or task != "glue_wnli"]

    parts = [task_values(tasks) for tasks in (GLUE, SUPER_GLUE, {"squad": SQUAD_METRICS[squad]})]
    benchmarks = [mean_or_none(values) for values in parts]
    return {**dict(zip(("glue", "super_glue", "squad"), benchmarks)), "overall": mean_or_none(benchmarks),
            "tasks": mean_or_none(sum(parts, []))}


# ---- Cases


def label_case(name, gold, predicted, classes):
    expected = {"accuracy": accuracy(gold, predicted), "f1_macro": macro_f1(gold, predicted, classes),
                "matthews": matthews(gold, predicted)}
    if classes == 2:
        expected |= {"f1": binary_f1(gold, predicted, 1), "f1_of_0": binary_f1(gold, predicted, 0)}
    return {"name": name, "gold": gold, "predicted": predicted, "classes": classes, "expected": expected}


def label_cases(rng):
    yield label_case("one example, right", [1], [1], 2)
    yield label_case("one example, wrong", [1], [0], 2)
    yield label_case("one example, unparsed", [0], [-1], 2)
    yield label_case("all unparsed", [0, 1, 1, 0, 1], [-1] * 5, 2)
    yield label_case("one class only, all right", [0] * 4, [0] * 4, 2)
    yield label_case("one gold class, answers of both", [1] * 4, [1, 0, 1, 0], 2)
    yield label_case("constant answers", [0, 1, 1, 0], [1] * 4, 2)
    yield label_case("all wrong", [0, 1, 1, 0], [1, 0, 0, 1], 2)
    yield label_case("a class that nobody names", [0, 1, 0, 1], [0, 1, 1, 1], 3)
    yield label_case("a class that only the answers name", [0, 1, 0, 1], [0, 2, 2, 1], 3)
    yield label_case("all unparsed, three classes", [0, 1, 2], [-1] * 3, 3)
    for number in range(36):
        classes, size = rng.choice([2, 2, 3, 5]), rng.randint(2, 70)
        gold = rng.choices(range(classes), weights=[rng.random() + 0.05 for _ in range(classes)], k=size)
        skill, unparsed = rng.random(), rng.choice([0, 0, 0.1, 0.5])
        predicted = [g if rng.random() < skill else rng.randrange(classes) for g in gold]
        predicted = [UNPARSED if rng.random() < unparsed else p for p in predicted]
        yield label_case(f"random {number}", gold, predicted, classes)


def correlation_case(name, gold, predicted):
    return {"name": name, "gold": gold, "predicted": predicted,
            "expected": {"pearson": pearson(gold, predicted), "spearman": spearman(gold, predicted)}}


def correlation_cases(rng):
    yield correlation_case("one example", [2.5], [1.0])
    yield correlation_case("two examples", [1.0, 2.0], [4.0, 3.0])
    yield correlation_case("constant answers", [0.0, 1.0, 5.0], [0.1, 0.1, 0.1])
    yield correlation_case("constant gold", [0.1, 0.1, 0.1], [0.0, 1.0, 5.0])
    yield correlation_case("constant on both sides", [0.1, 0.1, 0.1], [0.1, 0.1, 0.1])
    yield correlation_case("all unparsed", [0.0, 1.0, 5.0], [-1.0, -1.0, -1.0])
    yield correlation_case("ties on both sides", [1.0, 2.0, 2.0, 3.0, 3.0, 3.0], [5.0, 4.0, 4.0, 4.0, 1.0, 1.0])
    yield correlation_case("monotone, not linear", [1.0, 2.0, 3.0, 4.0], [1.0, 10.0, 100.0, 1000.0])
    yield correlation_case("a far outlier", [0.2, 1.4, 3.8, 5.0, 2.2], [0.2, 1.4, 1e12, 5.0, -1.0])
    for number in range(24):
        size, noise, unparsed = rng.randint(2, 60), rng.random() * 3, rng.choice([0, 0, 0.2])
        gold = [round(rng.random() * 5, 3) for _ in range(size)]
        predicted = [min(5.0, max(0.0, round((g + rng.gauss(0, noise)) * 5) / 5)) for g in gold]
        predicted = [-1.0 if rng.random() < unparsed else p for p in predicted]
        yield correlation_case(f"random {number}", gold, predicted)


TEXTS = ["", " ", "the", "a", "An the a", "The Cat", "the cat sat on a mat", "theatre", "a.m.", "A.B.C.", "U.S.A.",
         "don't", "the-cat", "the_cat", "a_b", "_", "$1,000.50", "50%", "well-known", "(brackets)", "!?#", "\"quoted\"",
         "caf\u00e9", "CAF\u00c9", "\u00c7a va", "\u00e0 la carte", "na\u00efve", "l\u2019a", "a\u2019s", "the\u2013a",
         "a\u00a0b", "a\u3000the\u2009b", "\u00aba\u00bb", "a\u00b2", "a\u00b0", "\u00ba a", "a\u0301 b", "the\u0301",
         "\u0391\u03a5\u03a4\u039f\u03a3", "\u039f\u03a3 \u03a3 \u03a3\u039f", "\u039f\u03a3'", "\u039f\u03a3.\u0391",
         "\u0130stanbul", "STRASSE \u1e9e", "\u041c\u043e\u0441\u043a\u0432\u0410", "\u0401\u0416", "\u0152uvre",
         "\u0178", "\u0106\u0141", "\u1ea4\u1eec", "\u0218\u021a", "\u4e2d\u6587 the \u4e2d", "\u4e2da\u6587",
         "\U0001f600 a \U0001f600", "a\U0001f600", "\U00010400", "\uff21 \uff41", "x\ty\nz\x0bw\x1cv\x85u",
         "  two   blanks  ", "\u2160\u24b6", "tab\there, the end.", "``LaTeX''", "e = mc^2", "{x|y}~ [z\\w]",
         "\ufffd a \ufffd"]
WORDS = ["the", "a", "an", "The", "A", "cat", "Cat", "CAT", "cats", "1996", "U.S.", "New", "York", "new-york", "x,y",
         "caf\u00e9", "Caf\u00c9", "\u2014", "--", "don't", "dont", "(", ")", "\u00e9cole", "\u0434\u043e\u043c",
         "\u0414\u041e\u041c"]


def text_case(text):
    return {"text": text, "lower": text.lower(), "normalised": " ".join(normalised_words(text))}


def answer_case(prediction, references):
    return {"prediction": prediction, "references": references, "expected": answer_score(prediction, references)}


def answer_cases(rng):
    yield answer_case("", [""])
    yield answer_case("the", ["a", "an"])
    yield answer_case("", ["cat"])
    yield answer_case("cat", ["", "the cat"])
    yield answer_case("cat cat cat", ["cat", "cat cat dog"])
    for prediction in ("U . S .", "U.S.", "US", "U S A", "don ' t", "don't"):
        yield answer_case(prediction, ["U.S.", "U.S.A.", "don't"])
    for _ in range(60):
        references = [" ".join(rng.choices(WORDS, k=rng.randint(1, 6))) for _ in range(rng.randint(1, 4))]
        words = rng.choice(references).split() if rng.random() < 0.8 else rng.choices(WORDS, k=rng.randint(0, 6))
        prediction = " ".join(w for w in words + rng.choices(WORDS, k=rng.randint(0, 1)) if rng.random() < 0.8)
        yield answer_case(prediction, references)


def question_case(gold, predicted, question):
    expected = {"f1a": binary_f1(gold, predicted, 1), "exact_match": question_exact_match(gold, predicted, question)}
    return {"gold": gold, "predicted": predicted, "question": question, "expected": expected}


def question_cases(rng):
    yield question_case([1], [1], [7])
    yield question_case([1, 0, 1], [-1, 0, 1], [3, 3, 9])
    for _ in range(12):
        question = sorted(rng.choices(range(rng.randint(1, 12)), k=rng.randint(1, 40)))
        if rng.random() < 0.5:
            rng.shuffle(question)
        gold = [rng.randrange(2) for _ in question]
        predicted = [g if rng.random() < 0.8 else rng.choice([-1, 1 - g]) for g in gold]
        yield question_case(gold, predicted, [q * 1000 - 3 for q in question])


def bootstrap_case(values, groups, resamples, seed):
    def largest(drawn):
        return max(values[i] for i in drawn)

    def average(drawn):
        return sum(fractions.Fraction(values[i]) for i in drawn) / len(drawn)

    return {"values": values, "groups": groups, "resamples": resamples, "seed": seed,
            "expected": {name: bootstrap_error(len(values), groups, resamples, seed, statistic)
                         for name, statistic in (("mean", average), ("largest", largest))}}


def bootstrap_cases(rng):
    yield bootstrap_case([0.5], [], 10, 1)
    yield bootstrap_case([0.0, 1.0, 1.0], [4, 4, 4], 10, 1)
    yield bootstrap_case([0.0, 1.0], [], 2, 3)
    yield bootstrap_case([1.0] * 8, [], 20, 5)
    for seed in (0, 1, 2**64 - 1, rng.getrandbits(64)):
        values = [float(rng.random() < 0.6) for _ in range(rng.randint(5, 40))]
        yield bootstrap_case(values, [], 50, seed)
        values = [rng.random() for _ in values]
        yield bootstrap_case(values, [rng.randrange(-3, 6) for _ in values], 50, seed)


def average_cases(rng):
    everything = [(task, metric) for tasks in (GLUE, SUPER_GLUE, {"squad": SQUAD_METRICS["mean"]})
                  for task, metrics in tasks.items() for metric in metrics]
    for missing in [set(), {("glue_wnli", "accuracy")}, {("squad", "f1")}, {("superglue_cb", "f1_macro")},
                    {("glue_mnli", "mismatched_accuracy")}, set(everything)]:
        for with_wnli in (False, True):
            for squad in SQUAD_METRICS:
                scores = {key: round(rng.random(), 4) for key in everything if key not in missing}
                yield {"scores": [[*key, value] for key, value in scores.items()], "with_wnli": with_wnli,
                       "squad": squad, "expected": average_scores(scores, with_wnli, squad)}


def unicode_facts():
    """What the tables of characters come to, over every character there is."""
    characters = [chr(c) for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
    words = "".join("01"[c.isalnum() or c == "_"] for c in characters)
    return {"version": unicodedata.unidata_version,
            "lower_sha256": hashlib.sha256("\n".join(characters).lower().encode()).hexdigest(),
            "words_sha256": hashlib.sha256(words.encode()).hexdigest()}


def make_cases():
    return {"labels": list(label_cases(random.Random(1))), "correlations": list(correlation_cases(random.Random(2))),
            "texts": [text_case(text) for text in TEXTS], "answers": list(answer_cases(random.Random(3))),
            "questions": list(question_cases(random.Random(4))), "bootstraps": list(bootstrap_cases(random.Random(5))),
            "averages": list(average_cases(random.Random(6))), "unicode": unicode_facts()}


def write(cases):
    """One case a line, so that a difference can be read."""
    sections = []
    for name, section in cases.items():
        lines = ",\n".join(map(json.dumps, section)) if isinstance(section, list) else json.dumps(section)
        sections.append(f'"{name}": ' + (f"[\n{lines}\n]" if isinstance(section, list) else lines))
    print("{\n" + ",\n".join(sections) + "\n}")


# ---- scikit-learn and scipy


def labels_by_sklearn(case):
    from sklearn import metrics
    gold, predicted = case["gold"], case["predicted"]
    scores = {"accuracy": metrics.accuracy_score(gold, predicted),
              "matthews": metrics.matthews_corrcoef(gold, predicted),
              "f1_macro": metrics.f1_score(gold, predicted, labels=range(case["classes"]), average="macro",
                                           zero_division=0)}
    if case["classes"] == 2:
        parsed = opposite_of_gold(gold, predicted)
        scores |= {"f1": metrics.f1_score(gold, parsed, zero_division=0),
                   "f1_of_0": metrics.f1_score(gold, parsed, pos_label=0, zero_division=0)}
    return scores


def correlations_by_scipy(case):
    from scipy import stats
    if len(case["gold"]) < 2:  # scipy refuses them
        return {}
    scores = {"pearson": stats.pearsonr(case["gold"], case["predicted"])[0],
              "spearman": stats.spearmanr(case["gold"], case["predicted"])[0]}
    return {name: 0.0 if math.isnan(value) else value for name, value in scores.items()}  # NaN where one is constant


def questions_by_sklearn(case):
    from sklearn import metrics
    predicted = opposite_of_gold(case["gold"], case["predicted"])
    return {"f1a": metrics.f1_score(case["gold"], predicted, zero_division=0)}


def check_against_sklearn(cases):
    try:
        import scipy
        import sklearn
    except ImportError as error:
        print(f"skipped: {error}")
        return 77
    warnings.simplefilter("ignore")  # about the undefined scores, which are what is asked for
    print(f"scikit-learn {sklearn.__version__}, scipy {scipy.__version__}")
    scorers = {"labels": labels_by_sklearn, "correlations": correlations_by_scipy, "questions": questions_by_sklearn}
    differences = collections.defaultdict(list)
    for section, scorer in scorers.items():
        for case in cases[section]:
            for metric, value in scorer(case).items():
                differences[metric].append(abs(float(value) - case["expected"][metric]))
    for metric, values in differences.items():
        print(f"{metric}: {len(values)} cases, largest difference {max(values):.1e}")
    return 0 if all(max(values) <= TOLERANCE for values in differences.values()) else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check-against-sklearn", action="store_true", help="compare and write nothing")
    parser.add_argument("--cases", type=pathlib.Path, metavar="FILE", help="these cases in place of new ones")
    arguments = parser.parse_args()
    cases = json.loads(arguments.cases.read_text()) if arguments.cases else make_cases()
    if arguments.check_against_sklearn:
        return check_against_sklearn(cases)
    write(cases)
    return 0


if __name__ == "__main__":
    sys.exit(main())
