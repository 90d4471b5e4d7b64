"""The schema of `conf/`: every key, its type, its range and its sentence.

YAML is for people; past the command line, code takes these dataclasses. `cli` merges the composed YAML into `Config`,
checks it and hands it on: nothing further down ever sees a DictConfig. A file a section; nothing heavy is imported.
"""

from dgr_lightning.config.data import BenignConfig, DataConfig, FieldsConfig, MixPart, SourceConfig
from dgr_lightning.config.engine import EngineConfig
from dgr_lightning.config.evaluation import EvaluationConfig, JudgeConfig, ProbesConfig
from dgr_lightning.config.logger import LoggerConfig
from dgr_lightning.config.model import ModelConfig
from dgr_lightning.config.refine import RefineConfig
from dgr_lightning.config.run import Config
from dgr_lightning.config.setting import Kind
from dgr_lightning.config.sft import SftConfig
from dgr_lightning.config.shift import ShiftConfig
from dgr_lightning.config.study import StudyConfig
from dgr_lightning.config.trainer import TrainerConfig
from dgr_lightning.config.tuning import LAYER_RANGE, TuningConfig

__all__ = [
    "LAYER_RANGE",
    "BenignConfig",
    "Config",
    "DataConfig",
    "EngineConfig",
    "EvaluationConfig",
    "FieldsConfig",
    "JudgeConfig",
    "Kind",
    "LoggerConfig",
    "MixPart",
    "ModelConfig",
    "ProbesConfig",
    "RefineConfig",
    "SftConfig",
    "ShiftConfig",
    "SourceConfig",
    "StudyConfig",
    "TrainerConfig",
    "TuningConfig",
]
