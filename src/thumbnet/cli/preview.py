"""Look at the data and the cost before training."""

from pathlib import Path

from thumbnet.cli.fitting import check_validation, first_choice, recipe_for
from thumbnet.cli.options import (
    Data,
    DataFlags,
    Json,
    Measuring,
    MeasuringFlags,
    RecipeFlags,
    Recipes,
    Whole,
    check_positive,
    described,
    given,
    print_json,
    show,
)
from thumbnet.data.datasets import load_dataset
from thumbnet.data.names import check_dataset_name
from thumbnet.recipes import recipe as named_recipe


@described
def preview(
    dataset: str,
    /,
    *,
    recipe: str | None = None,
    rows: Whole = 5,
    across: Whole = 5,
    out: Path = Path("preview"),
    fields: Recipes = RecipeFlags(),  # noqa: B008
    machine: Measuring = MeasuringFlags(),  # noqa: B008
    data: Data = DataFlags(),  # noqa: B008
    json: Json = False,
) -> None:
    """Draw the first images as stored and as augmented, and estimate what training would cost.

    Parameters
    ----------
    dataset
        a name from `thumbnet list datasets`, a folder of class folders, a .csv file that names images and their classes
        or has their pixels, an .npz file or a folder of IDX files
    recipe
        a name from `thumbnet list recipes`; the fields below change it
    rows
        images from top to bottom
    across
        images from left to right
    out
        folder for stored.png and augmented.png, written anew each time
    """
    check_dataset_name(dataset)
    start, typed = first_choice(dataset, recipe, given(fields))
    chosen = named_recipe(start, **typed)
    check_positive(rows=rows, across=across)

    from thumbnet.machine import Machine
    from thumbnet.measuring.preview import preview as look
    from thumbnet.progress import reporter_for_terminal
    from thumbnet.words import counted, duration

    with reporter_for_terminal() as reporter:
        loaded = load_dataset(dataset, validation=0, progress=reporter.loading, **given(data))
        for note in loaded.notes:
            reporter.say(f"note: {note}")
        check_validation(loaded, typed)
        if recipe is None:
            chosen = recipe_for(named_recipe(start), loaded.with_validation(**chosen.cut), typed, reporter)
        seen = look(chosen, loaded, out, rows=rows, columns=across, machine=Machine(**given(machine)))
    if json:
        fields_of = vars(seen) | {"stored": str(seen.stored), "augmented": str(seen.augmented)}
        print_json({"dataset": dataset, "recipe": chosen.name, **fields_of})
        return
    show(f"as stored    {seen.stored}")
    show(f"as augmented {seen.augmented}")
    show(f"model        {chosen.network}, {seen.parameters:,} parameters")
    show(f"one step     {seen.step_seconds * 1000:.1f} ms for {chosen.batch_size} images on {seen.backend}")
    show(
        f"estimated    {duration(seen.total_seconds)} for {counted(chosen.epochs, 'epoch')} ({counted(seen.steps, 'step')})"
    )
