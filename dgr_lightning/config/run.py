"""The whole config: its sections, and the few keys outside of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from dgr_lightning.config.data import DataConfig
from dgr_lightning.config.engine import EngineConfig
from dgr_lightning.config.evaluation import EvaluationConfig, JudgeConfig, ProbesConfig
from dgr_lightning.config.logger import LoggerConfig
from dgr_lightning.config.model import ModelConfig
from dgr_lightning.config.refine import RefineConfig
from dgr_lightning.config.setting import NEVER, setting
from dgr_lightning.config.sft import SftConfig
from dgr_lightning.config.shift import ShiftConfig
from dgr_lightning.config.study import StudyConfig
from dgr_lightning.config.trainer import TrainerConfig
from dgr_lightning.config.tuning import TuningConfig


@dataclass
class Config:
    """A whole run."""

    seed: int = setting(1, "draws the subset, orders the data, drives training", low=0)
    name: str = setting("dgr", "experiment name: runs/<name>/…; letters, digits, '.', '_' and '-'", private=False, hashed=NEVER)
    overwrite: bool = setting(False, "start from the beginning where a run of the same config exists", hashed=NEVER)
    plan: bool = setting(False, "show the set as this model sees it, before anything is generated, and end", hashed=NEVER)
    checkpoints: Optional[str] = setting(
        None, "a training's run directory, whose saved checkpoints are evaluated", private=True, hashed=NEVER
    )
    models: list[str] = setting(
        [],
        "several models to measure and compare: runs, folders, ids on the hub, names of conf/model",
        private=True,
        hashed=NEVER,
    )
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    shift: ShiftConfig = field(default_factory=ShiftConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    probes: ProbesConfig = field(default_factory=ProbesConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    study: StudyConfig = field(default_factory=StudyConfig)
