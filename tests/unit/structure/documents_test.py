#!/usr/bin/env python3
"""What the documents say exists: links lead to files and headings, commands are verbs of `allo`, options are theirs,
and every example is a sweep that `allo plan` takes."""
import functools
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
ALLO = os.environ["ALLO"]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/**/*.md"), *ROOT.glob("bench/**/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"\ballo ([a-z]+)((?: [^`|;,)#\n]*)?)")


def run(*arguments, **kwargs):
    return subprocess.run([ALLO, *arguments], capture_output=True, text=True, **kwargs)


@functools.cache
def help_of(*verb):
    return run(*verb, "--help").stdout


def verbs():
    listed = help_of().split("Subcommands:", 1)[1]
    return set(re.findall(r"^ {2,4}([a-z]+)\b", listed, re.MULTILINE))


def anchor(heading):
    """GitHub's anchor of a heading."""
    text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def code_of(text):
    """Code blocks and code spans, where commands stand."""
    blocks = re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return "\n".join([*blocks, *spans])


def make_data_root(root):
    """Files with the names that the examples look for below a data root; planning reads names, sizes and hashes only."""
    files = ["text/wikipedia-en-2015/AA.txt.xz", "text/wikipedia-en-2015/valid.txt.xz", "text/c4-train.00000.json.gz",
             "text/c4-validation.00000.json.gz", "tokenizer/spiece.model", "tokenizer/wiki-32k/spiece.model",
             "tasks/squad/train-v1.1.json", "tasks/squad/dev-v1.1.json"]
    for task in "CoLA SST-2 MRPC QQP STS-B QNLI RTE".split():
        files += [f"tasks/glue/{task}/train.tsv", f"tasks/glue/{task}/dev.tsv"]
    files += [f"tasks/glue/MNLI/{name}.tsv" for name in ("train", "dev_matched", "dev_mismatched")]
    for task in "BoolQ CB COPA MultiRC ReCoRD RTE WiC WSC".split():
        files += [f"tasks/superglue/{task}/train.jsonl", f"tasks/superglue/{task}/val.jsonl"]
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def console_commands(document):
    """(command, what it prints) of every `$ allo` line in the console blocks."""
    for block in re.findall(r"```console\n(.*?)```", document.read_text(), re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


# What the worked example reads beside the project's own files: published tables, which are not part of it.
RUN_TABLES = pathlib.Path(os.environ.get("ALLOMETRY_SHARED_DATA", ROOT.parent / "shared/data")) / "runs"


class Documents(unittest.TestCase):
    def test_links_lead_somewhere(self):
        for document in DOCUMENTS:
            for target in LINK.findall(document.read_text()):
                if re.match(r"[a-z]+:", target):
                    continue
                file, _, heading = target.partition("#")
                path = (document.parent / file) if file else document
                self.assertTrue(path.exists(), f"{document}: {target}")
                if heading:
                    headings = [anchor(h) for h in re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)]
                    self.assertIn(heading, headings, f"{document}: {target}")

    def test_commands_are_verbs_with_their_options(self):
        known = verbs()
        self.assertGreater(len(known), 20)
        seen = 0
        for document in DOCUMENTS:
            for verb, arguments in COMMAND.findall(code_of(document.read_text())):
                self.assertIn(verb, known, f"{document}: allo {verb}{arguments}")
                words = arguments.split()
                groups = help_of(verb).split("Subcommands:")
                sub = [words[0]] if len(groups) > 1 and words and words[0] in groups[1] else []
                for option in re.findall(r"(?<!\S)--[a-z-]+", arguments):
                    self.assertIn(option, help_of(verb, *sub) + help_of(verb), f"{document}: allo {verb}{arguments}")
                seen += 1
        self.assertGreater(seen, 20)

    def test_help_fits_a_terminal(self):
        for verb in ["", *verbs()]:
            for line in help_of(*verb.split()).splitlines():
                self.assertLessEqual(len(line), 80, f"allo {verb} --help: {line}")

    def test_every_verb_is_documented(self):
        text = (ROOT / "docs/cli.md").read_text()
        for verb in verbs():
            self.assertRegex(text, rf"`(allo )?{verb}\b", verb)

    def test_the_worked_example_prints_what_it_says(self):
        skipped, tried = set(), 0
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "examples").symlink_to(ROOT / "examples")
            for table in RUN_TABLES.glob("*.csv"):
                shutil.copy(table, folder)
            for command, output in console_commands(ROOT / "docs/analysis.md"):
                words = shlex.split(command)
                self.assertEqual(words[0], "allo")
                names = set(words) & skipped
                if words[1] == "import" and not (pathlib.Path(folder) / words[2]).exists():
                    skipped.add(words[words.index("--name") + 1])
                    continue
                if names:
                    continue
                done = run(*words[1:], cwd=folder)
                self.assertEqual(done.returncode, 0, f"{command}: {done.stderr}")
                self.assertEqual([line.rstrip() for line in done.stdout.splitlines()],
                                 [line.rstrip() for line in output.rstrip("\n").splitlines()], command)
                tried += 1
        self.assertGreater(tried, 7)
        if skipped:
            print(f"without {', '.join(skipped)}: no run tables in {RUN_TABLES}")

    def test_every_example_is_a_sweep(self):
        examples = sorted((ROOT / "examples").glob("*.yaml"))
        self.assertGreaterEqual(len(examples), 3)
        with tempfile.TemporaryDirectory() as folder:
            make_data_root(pathlib.Path(folder) / "root")
            for example in examples:
                arguments = ["plan", str(example), "--offline", "--format", "json"]
                if "--data-root" in example.read_text():
                    arguments += ["--data-root", f"{folder}/root", "--device-flops", "4e14"]
                plan = run(*arguments, env={**os.environ, "ALLOMETRY_DATA": folder})
                self.assertEqual(plan.returncode, 0, f"{example}: {plan.stderr}")
                if "--data-root" in example.read_text():
                    hours = json.loads(plan.stdout)["training_flops"] / 4e14 / 3600
                    self.assertAlmostEqual(json.loads(plan.stdout)["device_hours"], hours, places=6)


if __name__ == "__main__":
    unittest.main()
