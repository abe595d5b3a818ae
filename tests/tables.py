"""Pictures, and tables that name them."""

from PIL import Image


def paint(folder, *names):
    """A picture for each name, each of another grey."""
    for place, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (10 * (place + 1),) * 3).save(path)


def patients(tmp_path, *, each=4, count=12, split=""):
    """A table of patients with some images each, of two classes."""
    names = [f"{patient}-{number}.png" for patient in range(count) for number in range(each)]
    paint(tmp_path, *names)
    for place, name in enumerate(names):  # no two alike
        Image.new("RGB", (4, 4), (place, 255 - place, 7)).save(tmp_path / name)
    rows = [f"{name},{'ill' if int(name[0]) % 2 else 'well'},P{name.split('-')[0]}" for name in names]
    (tmp_path / "labels.csv").write_text("\n".join(["image,label,patient_id", *rows]) + "\n")
    return tmp_path / "labels.csv"
