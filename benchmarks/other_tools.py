"""What other tools say, beside this project: runs them and writes the tables of docs/other-tools.md.

    python benchmarks/other_tools.py [--only evaluators|counters|converters] [--coco FOLDER] [--work FOLDER]

Each tool is installed in the version below into a virtual environment of its own, which borrows what this
interpreter has installed (PyTorch above all) and is deleted at the end; `--work` keeps all environments and
files. A tool that cannot be installed or run has its error in the table. fiftyone needs a MongoDB server.

The COCO API's example is the first 100 images of COCO val2014. FOLDER holds its two files: the detections
`instances_val2014_fakebbox100_results.json`, in `results` of https://github.com/cocodataset/cocoapi, and the
annotations `instances_val2014.json` of https://cocodataset.org (`annotations_trainval2014.zip`), whole or cut
to these images as `instances_val2014_100.json`. Without `--coco`, the folder `eval/cocoapi_val2014_100` of
YOLOR_REAL_DATA is taken.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

PAGE = ROOT / "docs" / "other-tools.md"
RUN = ROOT / "results" / "published" / "mini" / "runs" / "csp-fast-mini-s0-27c2151a43"
DETECTIONS = "instances_val2014_fakebbox100_results.json"
VERSIONS = {
    "pycocotools": "2.0.11",
    "faster-coco-eval": "1.8.0",
    "hotcoco": "1.3.0",
    "torchmetrics": "1.9.0",
    "supervision": "0.31.2",
    "globox": "2.9.0",
    "fvcore": "0.1.5.post20221221",
    "ptflops": "0.7.5",
    "thop": "0.1.1.post2209072238",
    "torchinfo": "1.8.0",
    "calflops": "0.3.2",
    "datumaro": "1.13.12",
    "pylabel": "0.1.55",
    "fiftyone": "1.22.1",
}
MORE = {
    "torchmetrics": ["pycocotools==2.0.11"],
    "calflops": ["transformers==4.57.1"],
}  # undeclared or optional
NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
IOUS, RECALLS = np.linspace(0.5, 0.95, 10), np.linspace(0, 1, 101)
Found = dict[str, Any]


# ---- evaluators: called inside a tool's environment with the annotations' and detections' files


def with_pycocotools(truth: str, detections: str) -> Found:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return {"pycocotools": _cocoeval(COCO, COCOeval, truth, detections)}


def with_faster_coco_eval(truth: str, detections: str) -> Found:
    from faster_coco_eval import COCO, COCOeval_faster

    return {"faster-coco-eval": _cocoeval(COCO, COCOeval_faster, truth, detections)}


def with_hotcoco(truth: str, detections: str) -> Found:
    from hotcoco import COCO, COCOeval

    return {"hotcoco": _cocoeval(COCO, COCOeval, truth, detections)}


def _cocoeval(coco: Any, cocoeval: Any, truth: str, detections: str) -> list[float]:
    known = coco(truth)
    evaluation = cocoeval(known, known.loadRes(detections), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return [float(value) for value in evaluation.stats[:12]]


def _by_image(truth: str, detections: str, rising: bool) -> Iterator[tuple[list[Found], list[Found]]]:
    """Annotations and detections of every image, in the file's order of images or by rising id."""
    known, found = json.loads(Path(truth).read_text()), json.loads(Path(detections).read_text())
    for image in sorted(known["images"], key=lambda image: image["id"] if rising else 0):
        yield tuple(
            [row for row in rows if row["image_id"] == image["id"]] for rows in (known["annotations"], found)
        )


def with_torchmetrics(truth: str, detections: str) -> Found:
    import torch
    from torchmetrics.detection import MeanAveragePrecision

    ours = {"iou_thresholds": IOUS.tolist(), "rec_thresholds": RECALLS.tolist()}
    variants: dict[str, tuple[bool, Found, bool]] = {
        "torchmetrics": (False, {}, False),
        "+ area, iscrowd": (True, {}, False),
        "+ thresholds": (True, ours, False),
        "+ order of images": (True, ours, True),
    }
    names = (
        "map map_50 map_75 map_small map_medium map_large mar_1 mar_10 mar_100 mar_small mar_medium mar_large"
    )
    scores = {}
    for variant, (told, options, rising) in variants.items():
        metric = MeanAveragePrecision(box_format="xywh", **options)
        for known, found in _by_image(truth, detections, rising):
            target = {
                "boxes": torch.tensor([row["bbox"] for row in known], dtype=torch.float64).reshape(-1, 4),
                "labels": torch.tensor([row["category_id"] for row in known], dtype=torch.int64),
            }
            if told:
                target["area"] = torch.tensor([row["area"] for row in known], dtype=torch.float64)
                target["iscrowd"] = torch.tensor([row["iscrowd"] for row in known], dtype=torch.int64)
            predicted = {
                "boxes": torch.tensor([row["bbox"] for row in found], dtype=torch.float64).reshape(-1, 4),
                "labels": torch.tensor([row["category_id"] for row in found], dtype=torch.int64),
                "scores": torch.tensor([row["score"] for row in found], dtype=torch.float64),
            }
            metric.update([predicted], [target])
        values = metric.compute()
        scores[variant] = [float(values[name]) for name in names.split()]
    return scores


def with_supervision(truth: str, detections: str) -> Found:
    import supervision
    from supervision.metrics import MeanAveragePrecision, MeanAverageRecall

    def taken(rows: list[Found], told: bool) -> Any:
        boxes = np.array([row["bbox"] for row in rows], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        scores = np.array([row["score"] for row in rows]) if rows and "score" in rows[0] else None
        data = {name: np.array([row[name] for row in rows]) for name in ("area", "iscrowd")} if told else {}
        labels = np.array([row["category_id"] for row in rows], int)
        return supervision.Detections(boxes, class_id=labels, confidence=scores, data=data if rows else {})

    scores = {}
    variants = {
        "supervision": (False, False),
        "+ area, iscrowd": (True, False),
        "+ order of images": (True, True),
    }
    for variant, (told, rising) in variants.items():
        precision, recall = MeanAveragePrecision(), MeanAverageRecall()
        for known, found in _by_image(truth, detections, rising):
            for metric in (precision, recall):
                metric.update(taken(found, False), taken(known, told))
        p, r = precision.compute(), recall.compute()
        sizes = ("small_objects", "medium_objects", "large_objects")
        scores[variant] = [float(value) for value in (p.map50_95, p.map50, p.map75)]
        scores[variant] += [float(getattr(p, size).map50_95) for size in sizes]
        scores[variant] += [float(value) for value in (r.mAR_at_1, r.mAR_at_10, r.mAR_at_100)]
        scores[variant] += [float(getattr(r, size).mAR_at_100) for size in sizes]
    return scores


def with_globox(truth: str, detections: str) -> Found:
    from globox import AnnotationSet, COCOEvaluator

    known = AnnotationSet.from_coco(truth)
    evaluator = COCOEvaluator(ground_truths=known, predictions=known.from_results(detections))
    names = "ap ap_50 ap_75 ap_small ap_medium ap_large ar_1 ar_10 ar_100 ar_small ar_medium ar_large"
    return {"globox": [float(getattr(evaluator, name)()) for name in names.split()]}


# ---- counters: called inside a tool's environment with a row of Table 7


def row_of_table_7(label: str) -> tuple[Any, int]:
    """The configuration of a row's network and its test size in pixels."""
    from ablations.tables.table7 import TABLE
    from yolor_core.models.architectures import ARCHITECTURES

    (row,) = (row for row in TABLE.rows if row.label == label)
    model = row.experiment.science.model
    return model, ARCHITECTURES[model.architecture].size


def network(label: str, shapes: bool = True) -> tuple[Any, Any]:
    """The network of a row and one image; on the meta device where a tool needs no more than shapes."""
    import torch

    from yolor_core.models import create_model
    from yolor_core.models.build import blank_model

    model, size = row_of_table_7(label)
    device = "meta" if shapes else "cpu"
    return (blank_model if shapes else create_model)(model).eval(), torch.zeros(
        1, 3, size, size, device=device
    )


def with_fvcore(label: str) -> Found:
    from fvcore.nn import FlopCountAnalysis, parameter_count

    model, images = network(label, shapes=False)
    return {"fvcore": [parameter_count(model)[""], FlopCountAnalysis(model, images).total()]}


def with_ptflops(label: str) -> Found:
    import ptflops

    found = {}
    for backend in ("pytorch", "aten"):
        model, images = network(label)
        operations, parameters = ptflops.get_model_complexity_info(
            model,
            tuple(images.shape[1:]),
            as_strings=False,
            print_per_layer_stat=False,
            backend=backend,
            input_constructor=lambda _, images=images: {"images": images},
        )
        found[f"ptflops, {backend}"] = [parameters, operations]
    return found


def with_thop(label: str) -> Found:
    import thop

    model, images = network(label)
    operations, parameters = thop.profile(model, (images,), verbose=False)
    return {"thop": [parameters, operations]}


def with_torchinfo(label: str) -> Found:
    import torchinfo

    model, images = network(label)
    summary = torchinfo.summary(model, input_data=images, verbose=0)
    return {"torchinfo": [summary.total_params, summary.total_mult_adds]}


def with_calflops(label: str) -> Found:
    from calflops import calculate_flops

    model, images = network(label, shapes=False)
    flops, _, parameters = calculate_flops(
        model, args=[images], print_results=False, print_detailed=False, output_as_string=False
    )
    return {"calflops": [parameters, flops]}


def with_torch(label: str) -> Found:
    from torch.utils.flop_counter import FlopCounterMode

    model, images = network(label)
    with FlopCounterMode(display=False) as counter:
        model(images)
    return {
        "torch's FlopCounterMode": [sum(p.numel() for p in model.parameters()), counter.get_total_flops()]
    }


# ---- converters: called inside a tool's environment with a VOC folder and an empty one for the result


def with_supervision_voc(source: str, target: str) -> None:
    import supervision

    data = supervision.DetectionDataset.from_pascal_voc(f"{source}/JPEGImages", f"{source}/Annotations")
    data.as_coco(annotations_path=f"{target}/instances.json")


def with_globox_voc(source: str, target: str) -> None:
    from globox import AnnotationSet

    AnnotationSet.from_pascal_voc(f"{source}/Annotations").save_coco(
        f"{target}/instances.json", auto_ids=True
    )


def with_datumaro_voc(source: str, target: str) -> None:
    _with_datumaro(source, target, {}, {})


def with_datumaro_cured_voc(source: str, target: str) -> None:
    _with_datumaro(source, target, {"coordinate_mode": "voc-one-based"}, {"reindex": True})


def _with_datumaro(source: str, target: str, reading: Found, writing: Found) -> None:
    from datumaro import Dataset

    copied = shutil.copytree(source, f"{target}/voc")  # classes other than VOC's twenty want a file more
    Path(copied, "labelmap.txt").write_text("".join(f"{name}:::\n" for name in CLASSES))
    Dataset.import_from(copied, "voc_detection", **reading).export(
        f"{target}/coco", "coco_instances", **writing
    )


def with_pylabel_voc(source: str, target: str) -> None:
    from pylabel import importer

    data = importer.ImportVOC(f"{source}/Annotations", path_to_images="../JPEGImages")
    data.export.ExportToCoco(f"{target}/instances.json")


def with_fiftyone_voc(source: str, target: str) -> None:
    import fiftyone
    from fiftyone.types import COCODetectionDataset, VOCDetectionDataset

    data = fiftyone.Dataset.from_dir(
        dataset_type=VOCDetectionDataset,
        data_path=f"{source}/JPEGImages",
        labels_path=f"{source}/Annotations",
    )
    data.export(dataset_type=COCODetectionDataset, labels_path=f"{target}/instances.json")


def with_ablate_voc(source: str, target: str) -> None:
    made = f"{target}/made"
    command = [sys.executable, "-m", "ablations", "data", "convert", source, made]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)


# ---- running them


INSIDE: dict[str, Callable[..., Any]] = {
    name.removeprefix("with_"): function
    for name, function in list(globals().items())
    if name.startswith("with_")
}


class Failed(Exception):
    """A tool cannot be installed or run."""


def environment(tool: str, work: Path) -> str:
    """The interpreter of a tool's environment, which is made if it is not there."""
    if tool not in VERSIONS:
        return sys.executable
    folder = work / "environments" / tool
    python = folder / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
        borrowed = [entry for entry in sys.path if entry.endswith("site-packages")]
        (site / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
        wanted = [f"{tool}=={VERSIONS[tool]}", *MORE.get(tool, ())]
        done = subprocess.run([python, "-m", "pip", "install", "-q", *wanted], capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"not installed: {last_line(done.stderr)}")
    return str(python)


def inside(function: str, tool: str, work: Path, *arguments: str) -> Any:
    """What a function above returns in a tool's environment."""
    python = environment(tool, work)
    command = [python, __file__, "--inside", function, tool, *arguments]
    variables = dict(os.environ, OMP_NUM_THREADS="1", FIFTYONE_DO_NOT_TRACK="1", NO_ALBUMENTATIONS_UPDATE="1")
    done = subprocess.run(command, capture_output=True, text=True, env=variables)
    if done.returncode:
        raise Failed(last_line(done.stderr))
    answer = json.loads(done.stdout.splitlines()[-1])
    if tool in VERSIONS and Version(answer["version"]) != Version(VERSIONS[tool]):
        raise Failed(f"{answer['version']} is installed, not {VERSIONS[tool]}")
    return answer["found"]


def last_line(text: str) -> str:
    """The first sentence of the last line that says something, in plain ASCII."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("[notice]")]
    text = (lines[-1] if lines else "no message").encode("ascii", "replace").decode().replace("|", "/")
    return text.partition(". ")[0][:120]


def run_inside(function: str, tool: str, *arguments: str) -> None:
    """Call a function above and print what it returns, with the version of the tool, as one line of JSON."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with contextlib.redirect_stdout(io.StringIO()):
        found = INSIDE[function](*arguments)
    print(json.dumps({"found": found, "version": version(tool) if tool in VERSIONS else None}))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column is text, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def measured(tools: Sequence[str]) -> str:
    """When, and with which versions."""
    known = dict(VERSIONS, torch=version("torch").partition("+")[0])
    named = ", ".join(f"{tool} {known[tool]}" for tool in tools if tool in known)
    return textwrap.fill(f"Measured on {date.today()} with {named}.", 120)


# ---- the three parts of the page


EVALUATORS = ("pycocotools", "faster-coco-eval", "hotcoco", "torchmetrics", "supervision", "globox")
COUNTERS = ("fvcore", "ptflops", "thop", "torchinfo", "calflops", "torch")
CONVERTERS = {
    "`ablate data convert`": ("ablate", "ablate_voc"),
    "supervision": ("supervision", "supervision_voc"),
    "globox": ("globox", "globox_voc"),
    "datumaro": ("datumaro", "datumaro_voc"),
    "datumaro, options": ("datumaro", "datumaro_cured_voc"),
    "pylabel": ("pylabel", "pylabel_voc"),
    "fiftyone": ("fiftyone", "fiftyone_voc"),
}


def evaluators(work: Path, coco: Path) -> str:
    """Both tables of scores."""
    parts = []
    for name, title in (
        ("coco", "COCO API's example, 100 images"),
        ("run", "A run of ours, synthetic shapes"),
    ):
        truth, detections = prepare_scores(name, work, coco)
        known, found = json.loads(truth.read_text()), json.loads(detections.read_text())
        ours = our_scores(known, found)
        rows = [["this project", *(shown(value) for value in ours), ""]]
        for tool in EVALUATORS:
            try:
                answers = inside(tool.replace("-", "_"), tool, work, str(truth), str(detections))
            except Failed as error:
                rows.append([f"{tool}: {error}", *[""] * 13])
                continue
            for variant, values in answers.items():
                # a score without ground truth is -1 in most tools, NaN in some, null here
                gaps = [abs(a - b) for a, b in zip(values, ours, strict=True) if b is not None]
                rows.append([variant, *(shown(value) for value in values), f"{100 * max(gaps):.1g}"])
        boxes, crowds = len(known["annotations"]), sum(row["iscrowd"] for row in known["annotations"])
        size = (
            f"{len(known['images'])} images, {boxes} boxes, {crowds} of them crowds, {len(found)} detections"
        )
        head = ["percent", *NUMBERS, "off by"]
        parts.append(f"**{title}** ({size}):\n\n{table(head, rows)}")
    return "\n\n".join([measured(EVALUATORS), *parts])


def shown(score: float | None) -> str:
    return "-" if score is None or score == -1 or score != score else f"{100 * score:.2f}"


def prepare_scores(name: str, work: Path, coco: Path) -> tuple[Path, Path]:
    """Files of annotations and detections in COCO's formats, as every evaluator reads them."""
    truth, detections = work / f"{name}-truth.json", work / f"{name}-detections.json"
    if name == "coco":
        found = json.loads((coco / DETECTIONS).read_text())
        cut, whole = coco / "instances_val2014_100.json", coco / "instances_val2014.json"
        known = json.loads((cut if cut.is_file() else whole).read_text())
        images = set(sorted(row["id"] for row in known["images"])[:100])  # as in its demonstration
        known["images"] = [row for row in known["images"] if row["id"] in images]
        known["annotations"] = [row for row in known["annotations"] if row["image_id"] in images]
    else:
        from analysis.comparison import stored

        known, kept = stored(RUN)
        columns = (kept.image_id, kept.category_id, kept.boxes.astype(float), kept.scores.astype(float))
        rows = zip(*(column.tolist() for column in columns), strict=True)
        found = [dict(zip(("image_id", "category_id", "bbox", "score"), row, strict=True)) for row in rows]
    truth.write_text(json.dumps(known))
    detections.write_text(json.dumps(found))
    return truth, detections


def our_scores(known: Found, found: list[Found]) -> list[float | None]:
    """The twelve numbers as tables here have them."""
    from yolor_core.evaluation.detections import Detections
    from yolor_core.evaluation.engine import match, score
    from yolor_core.tasks import COCO_NUMBERS

    scores = score(match(known, Detections.from_results(found)))["detection"]
    return [scores[name] for name in COCO_NUMBERS]


# What a tool counts, in millions: C multiply-adds of convolutions, B outputs of convolutions with a bias,
# N elements of BatchNorm, M multiplications by implicit knowledge.
RULES: dict[str, tuple[str, Callable[[float, float, float, float], float]]] = {
    "this project": ("2 (C + B + 2 N) + M", lambda c, b, n, m: 2 * (c + b + 2 * n) + m),
    "paper's Table 7": ("2 (C + B + 2 N) + M, of P3 to P5", lambda c, b, n, m: 2 * (c + b + 2 * n) + m),
    "fvcore": ("C + 2 N", lambda c, b, n, m: c + 2 * n),
    "ptflops, pytorch": ("C + B + 2 N", lambda c, b, n, m: c + b + 2 * n),
    "ptflops, aten": ("C + B", lambda c, b, n, m: c + b),
    "thop": ("C + 4 N", lambda c, b, n, m: c + 4 * n),
    "torchinfo": ("C + B", lambda c, b, n, m: c + b),
    "calflops": ("2 C + B + 2 N", lambda c, b, n, m: 2 * c + b + 2 * n),
    "torch's FlopCounterMode": ("2 C", lambda c, b, n, m: 2 * c),
}


def counters(work: Path) -> str:
    """Parameters and operations of every row of Table 7 by every tool, and what they add up."""
    from ablations.tables.table7 import TABLE
    from yolor_core.models import count

    labels = [row.label for row in TABLE.rows]
    parameters: dict[tuple[str, str], float] = {}
    operations: dict[tuple[str, str], float] = {}
    parts, failures = {}, []
    for label in labels:
        counts = count(*row_of_table_7(label))
        parameters["paper's Table 7", label] = TABLE.paper()[label]["parameters"]
        parameters["this project", label] = counts.parameters
        operations["this project", label] = counts.mflops
        operations["paper's Table 7", label] = TABLE.paper()[label]["MFLOPs"]
        # every BatchNorm of these networks follows a convolution, and merging it leaves 2 of its 4 operations
        c, n = counts.flops_torch / 2e6, (counts.flops - counts.flops_fused) / 2e6
        m = sum(counts.implicit_flops.values()) / 1e6
        parts[label] = (c, (counts.mflops - m) / 2 - c - 2 * n, n, m)
        for tool in COUNTERS:
            try:
                answers = inside(tool, tool, work, label)
            except Failed as error:
                failures.append(f"{tool} failed at {label}: {error}.")
                continue
            for variant, (size, found) in answers.items():
                parameters[variant, label], operations[variant, label] = size, found / 1e6
    sizes, costs, rests = [], [], []
    for tool, (rule, value) in RULES.items():
        found = [operations.get((tool, label)) for label in labels]
        rest = [
            None if f is None else f - value(*parts[label]) for f, label in zip(found, labels, strict=True)
        ]
        costs.append([tool, *("" if f is None else f"{f:,.4f}" for f in found)])
        rests.append([tool, rule, *("" if r is None else f"{r:,.4f}" for r in rest)])
        if any((tool, label) in parameters for label in labels):
            counted = (parameters.get((tool, label)) for label in labels)
            sizes.append([tool, *("" if p is None else f"{int(p):,}" for p in counted)])
    names = ("C, multiply-adds", "B, outputs with a bias", "N, elements of BatchNorm", "M, multiplications")
    for place, name in enumerate(names):
        costs.append([name, *(f"{parts[label][place]:,.4f}" for label in labels)])
    tables = [
        table(["parameters", *labels], sizes),
        table(["operations, millions", *labels], costs),
        table(["operations less the rule, millions", "rule", *labels], rests),
    ]
    return "\n\n".join([measured(COUNTERS), *(textwrap.fill(line, 120) for line in failures), *tables])


# ---- one small VOC folder, and what became of it


CLASSES = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett"]
CLASSES += ["kilo", "lima"]
WIDTH, HEIGHT = 320, 240
CORNER, FRACTIONS = (1, 1, 200, 200), (12.5, 20.5, 60.25, 70.75)
EMPTY, MISNAMED, WRONG = "000003", "000004", "photo"
Box = tuple[str, tuple[float, float, float, float], bool]  # class, xmin ymin xmax ymax, difficult


def voc_boxes() -> dict[str, list[Box]]:
    """File name without suffix -> boxes: twelve classes on six pictures, one of them empty."""
    rng = np.random.default_rng(0)
    found: dict[str, list[Box]] = {f"{number:06d}": [] for number in range(1, 7)}
    found["000001"].append((CLASSES[0], CORNER, False))
    found["000002"].append((CLASSES[1], FRACTIONS, False))
    names = [name for name in found if name != EMPTY]
    for index in range(4 * len(CLASSES)):
        width, height = rng.integers(12, 60, 2)
        x, y = rng.integers(1, WIDTH - width), rng.integers(1, HEIGHT - height)
        corners = (int(x), int(y), int(x + width - 1), int(y + height - 1))
        found[names[index % len(names)]].append((CLASSES[index % len(CLASSES)], corners, index == 7))
    return found


def write_voc(folder: Path) -> None:
    """The VOC folder: JPEGImages, Annotations, ImageSets/Main/train.txt."""
    from PIL import Image

    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for number, (name, boxes) in enumerate(voc_boxes().items()):
        Image.new("RGB", (WIDTH, HEIGHT), (40 * number, 90, 120)).save(folder / "JPEGImages" / f"{name}.jpg")
        objects = "".join(
            f"<object><name>{label}</name><pose>Unspecified</pose><truncated>0</truncated>"
            f"<difficult>{int(difficult)}</difficult><bndbox>"
            + "".join(
                f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
            )
            + "</bndbox></object>"
            for label, corners, difficult in boxes
        )
        stated = f"{WRONG if name == MISNAMED else name}.jpg"
        (folder / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><folder>JPEGImages</folder><filename>{stated}</filename><size><width>{WIDTH}</width>"
            f"<height>{HEIGHT}</height><depth>3</depth></size><segmented>0</segmented>{objects}</annotation>"
        )
    (folder / "ImageSets" / "Main" / "train.txt").write_text("".join(f"{name}\n" for name in voc_boxes()))


def converters(work: Path) -> str:
    """What each converter makes of the folder."""
    source = work / "voc"
    if not source.is_dir():
        write_voc(source)
    rows = []
    for name, (tool, function) in CONVERTERS.items():
        with tempfile.TemporaryDirectory(dir=work) as target:
            try:
                inside(function, tool, work, str(source), target)
                files = sorted(
                    path for path in Path(target).rglob("*.json") if '"annotations"' in path.read_text()
                )
                contents = [json.loads(path.read_text()) for path in files]
                (content,) = [content for content in contents if content["images"]]
            except (Failed, ValueError) as error:
                rows.append([name, f"failed: {error}", *[""] * 8])
                continue
        rows.append([name, *judged(content)])
    head = ["", "1, 1, 200, 200", "fractions", "images", "ids", "classes by number"]
    head += [f"`{MISNAMED}.jpg`", "difficult", "AP of own boxes", "AP of VOC's boxes"]
    tools = list(dict.fromkeys(tool for tool, _ in CONVERTERS.values()))
    return f"{measured(tools)}\n\n{table(head, rows)}"


def judged(content: Found) -> list[str]:
    """The cells of a converter's row, from the annotation file that it wrote."""
    stems = {image["id"]: Path(image["file_name"]).stem for image in content["images"]}
    labels = {category["id"]: category["name"] for category in content["categories"]}
    mine = {stem: key for key, stem in stems.items()}
    misnamed = next((stem for stem in (MISNAMED, WRONG) if stem in mine), None)
    rows = content["annotations"]

    def box(stem: str, label: str) -> str:
        found = [
            r["bbox"] for r in rows if stems[r["image_id"]] == stem and labels[r["category_id"]] == label
        ]
        return ", ".join(f"{float(side):.6g}" for side in found[0]) if found else "none"

    ordered = [labels[key] for key in sorted(labels) if labels[key] in CLASSES]
    ids = [row["id"] for row in rows]
    by_label = {label: key for key, label in labels.items()}
    true = []
    for name, boxes in voc_boxes().items():
        image = mine.get(misnamed if name == MISNAMED and misnamed else name)
        for label, (x, y, right, bottom), _ in boxes:
            if image is not None and label in by_label:
                sides = [x - 1, y - 1, right - x + 1, bottom - y + 1]
                true.append({"image_id": image, "category_id": by_label[label], "bbox": sides, "score": 1.0})
    own = [{key: row[key] for key in ("image_id", "category_id", "bbox")} | {"score": 1.0} for row in rows]
    crowds = sum(bool(row.get("iscrowd")) for row in rows)
    return [
        box("000001", CLASSES[0]),
        box("000002", CLASSES[1]),
        f"{len(stems)} of {len(voc_boxes())}",
        f"{min(ids)} to {max(ids)}, {len(set(ids))} of {len(ids)} different",
        "in order" if ordered == CLASSES else ", ".join(ordered[:4]) + " ...",
        "not there" if misnamed is None else f"`{content_name(content, mine[misnamed])}`",
        "iscrowd" if crowds == 1 else "as others" if not crowds else f"{crowds} crowds",
        percent(content, own),
        percent(content, true),
    ]


def content_name(content: Found, image: int) -> str:
    return Path(next(row["file_name"] for row in content["images"] if row["id"] == image)).name


def percent(content: Found, detections: list[Found]) -> str:
    """AP by pycocotools, in percent, or what it raises."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            known = COCO()
            known.dataset = json.loads(json.dumps(content))
            known.createIndex()
            evaluation = COCOeval(known, known.loadRes(json.loads(json.dumps(detections))), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
    except Exception as error:  # whatever it stumbles over is the answer
        return f"{type(error).__name__}: {error}"
    return f"{100 * evaluation.stats[0]:.1f}"


def fill(page: str, part: str, text: str) -> str:
    """The page with what stands between the part's two marks replaced."""
    begin, end = f"<!-- begin {part} -->\n", f"<!-- end {part} -->\n"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{text}\n\n{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("evaluators", "counters", "converters"))
    default = os.environ.get("YOLOR_REAL_DATA", "")
    parser.add_argument(
        "--coco", type=Path, default=Path(default, "eval", "cocoapi_val2014_100"), metavar="FOLDER"
    )
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="keeps environments and files")
    parser.add_argument("--inside", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.inside:
        run_inside(*chosen.inside)
        return
    if chosen.only in (None, "evaluators") and not (chosen.coco / DETECTIONS).is_file():
        parser.error(f"--coco: {chosen.coco} has no {DETECTIONS}; where to get it stands above")
    with tempfile.TemporaryDirectory() as temporary:
        work = (chosen.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        makers = {"evaluators": lambda: evaluators(work, chosen.coco), "counters": lambda: counters(work)}
        makers["converters"] = lambda: converters(work)
        for part, make in makers.items():
            if chosen.only in (None, part):
                PAGE.write_text(fill(PAGE.read_text(), part, make()))
                print(f"{part} written to {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
