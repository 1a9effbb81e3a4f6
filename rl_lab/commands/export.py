"""`rl-lab export`: a trained agent as a zip of Stable-Baselines3."""

from pathlib import Path

from rl_lab.errors import UserError
from rl_lab.run import Run
from rl_lab.text import inert


def export(run: str, file: Path | None = None, /, *, model: str = "best") -> int:
    """Write a trained agent as the zip file that Stable-Baselines3's `load` reads.

    Parameters
    ----------
    run
        Name or directory.
    file
        Where to: a new file that ends in .zip; RUN.zip here if not given.
    model
        best (by evaluation return) or last (the newest checkpoint).
    """
    chosen = Run.open(run)
    file = file or Path(f"{chosen.name}.zip")
    if file.suffix != ".zip":
        raise UserError(f"{str(file)!r}: should end in .zip")
    from rl_lab.rl.algorithms import algorithm_class
    from rl_lab.rl.export_zip import export_zip
    from rl_lab.rl.saved import newest, recipe_of

    recipe = recipe_of(chosen)
    written = export_zip(recipe, newest(chosen, model), file)
    sb3_class = algorithm_class(recipe.algorithm.name)
    package = sb3_class.__module__.partition(".")[0]
    print(f"{inert(written[0])}  the agent: {package}.{sb3_class.__name__}.load reads it")
    for pickled in written[1:]:
        print(
            f"{inert(pickled)}  how its observations are normalised: VecNormalize.load reads it "
            "(a pickle, SB3's format for it: who reads one runs what is in it)"
        )
    return 0
