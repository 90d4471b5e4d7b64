"""Labels a set by whether each row's own answer refuses: `python -m dgr_lightning.scoring.label_list FILE > star1-2.json`.

The answer is what follows `</think>`. One that the keyword judge calls a refusal makes its row `harmful`, any other
`safe_completion`. What is printed is a list for `data/label_lists/`: ids alone, no text.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dgr_lightning.data.file_readers import Row, read_rows
from dgr_lightning.data.row_parsing import split_response
from dgr_lightning.example import HARMFUL, SAFE_COMPLETION
from dgr_lightning.hashes import content_hash
from dgr_lightning.scoring.judge import Exchange
from dgr_lightning.scoring.judges.keywords import KeywordJudge

RULE = (
    f"{HARMFUL} where the keyword judge finds a refusal in the opening of the row's own answer (what follows </think>), "
    f"{SAFE_COMPLETION} otherwise"
)


def label_rows(
    rows: Sequence[Row], id_column: str, prompt: str, response: str, judge: KeywordJudge | None = None
) -> dict[str, Any]:
    """Returns the list: `rule`, the hash of the judge's list, number of rows and `ids` by label, in the order of the rows.

    Args:
        rows: of the set.
        id_column: column with the id.
        prompt: column with the prompt.
        response: column with trace and answer.
        judge: finds the refusals; None: by the shipped list and its rules.
    """
    judge = judge or KeywordJudge()
    exchanges = [Exchange(row[prompt], split_response(row[response])[1]) for row in rows]
    ids: dict[str, list[str]] = {HARMFUL: [], SAFE_COMPLETION: []}
    for row, verdict in zip(rows, judge.verdicts(exchanges), strict=True):
        ids[HARMFUL if verdict.refused else SAFE_COMPLETION].append(str(row[id_column]))
    return {"rule": RULE, "judge": f"keywords, phrases {content_hash(judge.content)}", "rows": len(rows), "ids": ids}


def main() -> None:
    """Prints the list of a file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="the set's rows: jsonl, json, csv or parquet")
    for column, default in (("id", "id"), ("prompt", "question"), ("response", "response")):
        parser.add_argument(f"--{column}", default=default, help=f"column with the {column} (default: {default})")
    options = parser.parse_args()
    print(json.dumps(label_rows(read_rows(options.file), options.id, options.prompt, options.response)))


if __name__ == "__main__":
    main()
