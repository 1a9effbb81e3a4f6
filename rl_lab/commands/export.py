"""`rl-lab export`: runs for other programs: tables, a zip of Stable-Baselines3, an ONNX graph."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from rl_lab.errors import UserError
from rl_lab.files import is_directory, is_there
from rl_lab.results import find
from rl_lab.run import Run
from rl_lab.tables import tables
from rl_lab.text import inert

Format = Literal["sb3", "onnx", "parquet", "csv"]


def export(
    *runs: str,
    form: Annotated[Format, Parameter(name="--format")] = "sb3",
    output: Path | None = None,
    model: str = "best",
) -> int:
    """Write what other programs read: a trained agent, or tables of what runs logged.

    Formats sb3 (the zip that Stable-Baselines3's `load` reads) and onnx (the greedy policy alone,
    checked to act as the agent does) take one agent. Formats parquet and csv take any runs: their
    metrics, events, evaluated episodes, measurements and samples, a table each.

    Parameters
    ----------
    runs
        Names or directories; for tables also a directory that holds runs (a benchmark's), a name
        without its -seedN, a pattern or a recipe's name.
    form
        What to write.
    output
        Where to: a new file, or for tables a new directory; if not given, named after the run.
    model
        Of an agent: best (by evaluation return) or last (the newest checkpoint).
    """
    if not runs:
        raise UserError("export needs a run; `rl-lab runs` lists them")
    if form in ("parquet", "csv"):
        return _export_tables(runs, form, output)
    if len(runs) > 1:
        hint = f"; say where to write by --output {runs[1]}" if Path(runs[1]).suffix else ""
        raise UserError(f"--format {form} takes one run, not {len(runs)}{hint}")
    run = Run.open(runs[0])
    return (_export_sb3 if form == "sb3" else _export_onnx)(run, output, model)


def _export_sb3(run: Run, file: Path | None, model: str) -> int:
    file = _new_file(run, file, ".zip")
    from rl_lab.rl.algorithms import algorithm_class
    from rl_lab.rl.export_zip import export_zip
    from rl_lab.rl.saved import newest, recipe_of

    recipe = recipe_of(run)
    written = export_zip(recipe, newest(run, model), file)
    sb3_class = algorithm_class(recipe.algorithm.name)
    package = sb3_class.__module__.partition(".")[0]
    print(f"{inert(written[0])}  the agent: {package}.{sb3_class.__name__}.load reads it")
    for pickled in written[1:]:
        print(
            f"{inert(pickled)}  how its observations are normalised: VecNormalize.load reads it "
            "(a pickle, SB3's format for it: who reads one runs what is in it)"
        )
    return 0


def _export_onnx(run: Run, file: Path | None, model: str) -> int:
    file = _new_file(run, file, ".onnx")
    from rl_lab.rl.export_onnx import export_onnx
    from rl_lab.rl.saved import newest, recipe_of

    compared = export_onnx(recipe_of(run), newest(run, model), file, run.name)
    print(
        f"{inert(file)}  the greedy policy: its actions are the agent's on {compared} observations "
        "of real episodes"
    )
    return 0


def _new_file(run: Run, file: Path | None, ending: str) -> Path:
    file = file or Path(f"{run.name}{ending}")
    if file.suffix != ending:
        raise UserError(f"--output {str(file)!r}: should end in {ending}")
    _check_new(file)
    return file


def _check_new(path: Path) -> None:
    if is_there(path):
        raise UserError(f"{path} exists; nothing was written")
    if not is_directory(path.parent):
        raise UserError(f"--output {str(path)!r}: there is no directory {str(path.parent)!r}")


def _export_tables(names: tuple[str, ...], form: Literal["parquet", "csv"], to: Path | None) -> int:
    chosen = find(names)
    to = to or Path(f"{Path(names[0]).name if len(names) == 1 else 'runs'}-{form}")
    _check_new(to)
    from rl_lab.table_files import write_tables

    for name, (rows, columns) in write_tables(tables(chosen), to, form).items():
        print(f"{inert(to / name)}  {rows:,} rows of {columns:,} columns")
    print(f"{len(chosen):,} run{'s' if len(chosen) > 1 else ''}")
    return 0
