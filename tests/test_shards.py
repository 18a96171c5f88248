"""Data sets on disk: other programs open the shards, and streams of any number of processes read the same samples."""

import io
import json
import tarfile
import warnings
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as load_bytes

from lyra.errors import LyraError, LyraWarning
from lyra.files.clips import Clip
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.synthesis.imagined import SyntheticScene
from lyra.synthesis.samples import Sample, Split, decode_sample, encode_sample
from lyra.synthesis.shards import check_shard, pack_files, read_index, unpack_files, write_shard
from lyra.synthesis.streaming import DataSet
from lyra.views.views import Motion, Views


def a_sample(number: int, split: Split = "train", moving: bool = False) -> Sample:
    generator = torch.Generator().manual_seed(number)
    pictures = 5 if moving else 1
    images = torch.randint(256, (pictures, 3, 8, 12), generator=generator) / 255
    depth = (0.5 + torch.rand(pictures, 8, 12, generator=generator)).half().float()
    lens = intrinsics_from_fov(55.0, 8, 12)
    motion = Motion(images[:, 0] > 0.5, images[0, 0] > 0.5, images[0], depth[0], 0.5) if moving else None
    views = Views(images, depth, Cameras(torch.eye(4).repeat(pictures, 1, 1), lens.repeat(pictures, 1), 8, 12), motion)
    cameras = Cameras(torch.eye(4).repeat(5, 1, 1), lens.repeat(5, 1), 8, 12)

    def clips(count: int) -> tuple[Clip, ...]:
        return tuple(Clip(torch.randn(4, 2, 2, 3, generator=generator).half().float(), cameras) for _ in range(count))

    depths = tuple(torch.rand(5, 4, 6, generator=generator).half().float() for _ in range(3))
    forward = ("input", "left", "up") if moving else ("left", "up")
    names = [*forward, *(("left.backward", "up.backward") if moving else ())]
    scene = SyntheticScene(views, clips(len(forward)), clips(2 * moving), depths[: len(forward)], depths[: 2 * moving])
    ids = {name: f"{number:04d}{name}" for name in names}
    return Sample(f"{number:020x}", f"{number:064x}", split, f"number {number}", scene, ids, {"seed": number})


def assert_same(one: Sample, other: Sample) -> None:
    assert encode_sample(one) == encode_sample(other)
    assert (one.id, one.caption, one.clips, one.provenance) == (other.id, other.caption, other.clips, other.provenance)
    pairs = zip((*one.scene.clips, *one.scene.backward), (*other.scene.clips, *other.scene.backward), strict=True)
    assert all(torch.equal(a.latents, b.latents) for a, b in pairs)
    assert all(torch.equal(a, b) for a, b in zip(one.scene.depth, other.scene.depth, strict=True))
    assert torch.equal(one.scene.views.depth, other.scene.views.depth)


def build(folder: Path, counts: tuple[int, ...] = (3, 3, 2), split: Split = "train") -> Path:
    number = 0
    for shard, count in enumerate(counts):
        pieces = {}
        for _ in range(count):
            sample = a_sample(number, split)
            pieces[sample.id] = folder / f"{sample.id}.piece"
            pieces[sample.id].parent.mkdir(parents=True, exist_ok=True)
            pieces[sample.id].write_bytes(pack_files(sample.id, encode_sample(sample)))
            number += 1
        write_shard(folder / "shards" / f"{split}-{shard:05d}.tar", pieces)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("moving", [False, True])
def test_a_sample_survives_its_files(moving: bool):
    sample = a_sample(3, moving=moving)
    key, files = unpack_files(pack_files(sample.id, encode_sample(sample)))
    again = decode_sample(files)
    assert key == sample.id and again.moving == moving
    assert_same(sample, again)
    without = replace(sample, scene=replace(sample.scene, depth=(), backward_depth=()))
    assert decode_sample(encode_sample(without)).scene.depth == ()


def test_the_same_samples_give_the_same_bytes(folder: Path, tmp_path: Path):
    build(tmp_path)
    for path in sorted((folder / "shards").iterdir()):
        assert path.read_bytes() == (tmp_path / "shards" / path.name).read_bytes()


def test_python_s_tar_reader_opens_a_shard(folder: Path):
    with tarfile.open(folder / "shards/train-00000.tar") as archive:
        names = archive.getnames()
        assert [name.partition(".")[2] for name in names[:4]] == [
            "json",
            "views.safetensors",
            "left.safetensors",
            "up.safetensors",
        ]
        content = archive.extractfile(names[2])
        assert content is not None
        latents = load_bytes(content.read())["latents"]
    assert torch.equal(latents.float(), a_sample(0).scene.clips[0].latents)


def test_webdataset_reads_the_same_samples(folder: Path):
    webdataset = pytest.importorskip("webdataset")
    urls = str(folder / "shards" / "train-{00000..00002}.tar")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [a_sample(number).id for number in range(8)]
    assert json.loads(samples[5]["json"])["caption"] == "number 5"
    assert "left.safetensors" in samples[5]


def test_every_epoch_has_every_sample_once_in_an_order_of_its_own(folder: Path):
    data = DataSet(folder)
    orders = [data.order(1, epoch) for epoch in range(3)]
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3 and data.order(2, 0) != orders[0]
    drawn = list(islice(data.stream(seed=1), 24))
    assert [item.sample.id for item in drawn] == [data.ids[index] for order in orders for index in order]
    assert [item.epoch for item in drawn] == [0] * 8 + [1] * 8 + [2] * 8


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_processes_share_one_order_and_another_number_goes_on_in_it(folder: Path, world: int):
    data = DataSet(folder)
    alone = [item.sample.id for item in islice(data.stream(seed=4), 30)]
    streams = [data.stream(4, rank, world) for rank in range(world)]
    together = [item for _ in range(30 // world) for item in (next(stream) for stream in streams)]
    assert [item.sample.id for item in together] == alone
    assert [item.position for item in together] == list(range(30))
    again = [data.stream(4, rank, 2, position=12) for rank in range(2)]  # in the middle of the second epoch
    assert [item.sample.id for _ in range(9) for item in (next(stream) for stream in again)] == alone[12:]


def test_a_damaged_sample_is_skipped_counted_and_its_shard_named(tmp_path: Path):
    data = DataSet(build(tmp_path))
    index = read_index(tmp_path / "shards/train-00001.json")
    shard = tmp_path / "shards" / index.name
    content = bytearray(shard.read_bytes())
    content[index.samples[1].offset + 700] ^= 1
    shard.write_bytes(content)
    lost = index.samples[1].id
    with pytest.warns(LyraWarning, match=rf"{lost} in .*train-00001.tar is damaged: skipped") as said:
        read = [item.sample.id for item in islice(data.stream(), 16)]
    assert len(said) == 1 and set(read) == set(data.ids) - {lost} and len(read) == 16
    assert dict(data.damaged) == {"train-00001.tar": 2}
    assert check_shard(tmp_path, index) == [f"train-00001.tar is damaged: 1 of 3 samples ({lost})"]
    shard.unlink()
    assert "cannot be read" in check_shard(tmp_path, index)[0]


def test_nothing_whole_and_nothing_there_are_errors(tmp_path: Path):
    with pytest.raises(LyraError, match="has no samples of the split 'train': run lyra synthesize"):
        DataSet(tmp_path)
    data = DataSet(build(tmp_path, (2,)))
    (tmp_path / "shards/train-00000.tar").write_bytes(b"")
    with pytest.warns(LyraWarning), pytest.raises(LyraError, match=r"no sample of .* is whole"):
        next(data.stream())
    (tmp_path / "shards/train-00000.json").write_text("{")
    with pytest.raises(LyraError, match="is damaged"):
        DataSet(tmp_path)


def test_a_piece_of_two_samples_or_of_none_is_refused():
    piece = pack_files("a", {"json": b"1"}) + pack_files("b", {"json": b"2"})
    with pytest.raises(LyraError, match="holds 2 samples"):
        unpack_files(piece)
    with pytest.raises(LyraError, match="holds 0 samples"):
        unpack_files(b"")
    with tarfile.open(fileobj=io.BytesIO(piece + bytes(1024))) as archive:
        assert archive.getnames() == ["a.json", "b.json"]
