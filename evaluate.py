"""Measure reasoning, refusal and over-refusal of any Hugging Face folder, with intervals.

    python evaluate.py model.path=runs/dgr/<run>/model              # what a run has trained
    python evaluate.py model=qwen3-4b evaluation.limit=50           # a hub model, 50 problems a task
    python evaluate.py model.path=<folder> evaluation.tasks=[gsm8k]
    python evaluate.py 'models=[runs/dgr/<run>,qwen3-4b]'           # several, with a comparison of every pair
    python evaluate.py --help

Tasks and chat style follow from the folder; every output lies in runs/<name>/evaluate-…/evaluation/.
"""

from dgr_lightning.cli.scripts import evaluate

if __name__ == "__main__":
    evaluate()
