"""The picture of the README: lower and upper make the merged view; a commit makes the upper a layer."""

from svg import INK, Drawing

WIDTH, HEIGHT = 940, 372
ROW, CELL = 52, 92
COLUMNS = {"hosts": 146, "motd": 246, "games": 346, "notes": 446}
ROWS = {"merged": 44, "upper": 150, "lower": 256}
COLOURS = {  # fill and outline of what comes from a layer
    "lower": ("#d6e6f7", "#4a7fb5"),
    "upper": ("#fde3c0", "#c77d1a"),
    "image": ("#e4e0f3", "#7a68b3"),
    "plain": ("#f3f3f3", "#8c8c8c"),
}
NOTES = {"merged": "what programs see", "upper": "what they changed", "lower": "read-only"}

# Where each name stands, and how the layer has it.
CELLS = (
    ("lower", "hosts", "hosts"),
    ("lower", "motd", "motd"),
    ("lower", "games", "games"),
    ("upper", "motd", "motd, new"),
    ("upper", "games", "whiteout"),
    ("upper", "notes", "notes"),
)
VIEW = (("hosts", "lower", "hosts"), ("motd", "upper", "motd, new"), ("notes", "upper", "notes"))

TITLE = "overlayfs-py and layerstore"
DESCRIPTION = (
    "On the left, a mount. The lower directory holds hosts, motd and games. The upper directory holds a "
    "new motd, a whiteout for games, and notes. The merged directory shows hosts of the lower, motd and "
    "notes of the upper, and no games. On the right, layerstore commit writes the upper as a layer. The "
    "image is a list of layers: the lower and that one. It goes to registries, docker, podman, skopeo, and "
    "its layers are the lowers of the next mount."
)


def draw() -> str:
    drawing = Drawing(WIDTH, HEIGHT, TITLE, DESCRIPTION)
    stack(drawing)
    image(drawing)
    return drawing.render()


def stack(drawing: Drawing) -> None:
    """The three directories of a mount, a file in the same column in each."""
    drawing.text(10, 22, "overlayfs-py", bold=True, size=16)
    drawing.text(132, 22, "mounts directories as one", size=14)
    for name, y in ROWS.items():
        drawing.box(
            132, y, 420, ROW + 12, "none", COLOURS.get(name, COLOURS["plain"])[1], dashed=name == "merged"
        )
        drawing.text(10, y + 28, name, bold=True)
        drawing.text(10, y + 46, NOTES[name], size=12)
    for layer, column, words in CELLS:
        cell(drawing, ROWS[layer], column, words, layer)
    for column, layer, words in VIEW:
        cell(drawing, ROWS["merged"], column, words, layer)
        middle = COLUMNS[column] + CELL / 2
        drawing.arrow([(middle, ROWS[layer] + 6), (middle, ROWS["merged"] + ROW + 10)])


def cell(drawing: Drawing, row: int, column: str, words: str, layer: str) -> None:
    fill, stroke = COLOURS[layer]
    x = COLUMNS[column]
    drawing.box(x, row + 10, CELL, ROW - 8, fill, stroke, dashed=words == "whiteout")
    drawing.text(x + CELL / 2, row + 37, words, size=13, fill=INK, anchor="middle", mono=words != "whiteout")


def image(drawing: Drawing) -> None:
    """Commit, the image, and where it goes."""
    left, width, top = 716, 214, ROWS["upper"] - 36
    drawing.text(left, 22, "layerstore", bold=True, size=16)
    drawing.text(left + 100, 22, "keeps images", size=14)
    fill, stroke = COLOURS["image"]
    drawing.box(left, top, width, 218, fill, stroke)
    drawing.text(left + width / 2, top + 24, "OCI image", fill=INK, anchor="middle", bold=True)
    for y, layer, words in (
        (ROWS["upper"] + 6, "upper", "layer 2: the change"),
        (ROWS["lower"] + 6, "lower", "layer 1: the base"),
    ):
        drawing.box(left + 12, y, width - 24, ROW, *COLOURS[layer])
        drawing.text(left + width / 2, y + 31, words, size=13, fill=INK, anchor="middle")
    middle = ROWS["upper"] + 32
    drawing.arrow([(553, middle), (left + 8, middle)])
    drawing.text(634, middle - 10, "layerstore commit", size=13, anchor="middle", mono=True)
    drawing.text(634, middle + 20, "upper → layer", size=12, anchor="middle")
    middle = ROWS["lower"] + 32
    drawing.arrow([(left + 10, middle), (556, middle)])
    drawing.text(634, middle - 10, "layerstore mount", size=13, anchor="middle", mono=True)
    drawing.text(634, middle + 20, "layers → lowers", size=12, anchor="middle")
    drawing.arrow([(left + width / 2, top - 1), (left + width / 2, 76)])
    drawing.text(left + width / 2, 48, "push, save → registries,", size=13, anchor="middle")
    drawing.text(left + width / 2, 66, "docker, podman, skopeo", size=13, anchor="middle")
    drawing.text(left + width / 2, 356, "from import, pull, load", size=12, anchor="middle")
