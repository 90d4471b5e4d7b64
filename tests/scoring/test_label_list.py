"""A list of labels made from a set's own answers."""

import json
import subprocess
import sys

from dgr_lightning.scoring.judges.keywords import SHIPPED_PHRASES, KeywordJudge
from dgr_lightning.scoring.label_list import label_rows


def test_rows_are_labelled_by_what_their_own_answer_does(tmp_path):
    answers = ["I'm sorry, but I can't assist with that.", "Please call a helpline.", "I cannot help with that."]
    rows = [{"id": 7 * i, "question": "q", "response": f"<think>\nt\n</think>\n\n{a}"} for i, a in enumerate(answers)]
    found = label_rows(rows, "id", "question", "response")
    assert found["ids"] == {"harmful": ["0", "14"], "safe_completion": ["7"]} and found["rows"] == 3
    assert "keyword judge" in found["rule"] and found["judge"].startswith("keywords, phrases ")
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows))
    command = [sys.executable, "-m", "dgr_lightning.scoring.label_list", str(file)]
    assert json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) == found


def test_the_shipped_list_of_star1_is_what_its_rule_gives(shared):
    """It was made with the phrases alone, which have not changed since; the rules that came later move none of its labels."""
    from dgr_lightning.data.file_readers import read_rows
    from dgr_lightning.data.label_lists import label_list_file, read_labels

    rows = read_rows(shared / "data/star1/STAR-1.json")
    made = json.loads(label_list_file("star1-1").read_text(encoding="utf-8"))
    found = label_rows(rows, "id", "question", "response", KeywordJudge(SHIPPED_PHRASES))
    assert found["ids"] == made["ids"] and found["judge"] == made["judge"]
    shipped = read_labels("star1-1")
    now = label_rows(rows, "id", "question", "response")["ids"]
    agreeing = sum(shipped[id_] == label for label, ids in now.items() for id_ in ids)
    assert agreeing >= 0.94 * len(shipped) == 0.94 * 1000
