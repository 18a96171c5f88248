import os
from pathlib import Path

import pytest

from lyra.errors import LyraError
from lyra.training.fastdepth import FastDepth

FILE = Path(os.environ.get("LYRA_FASTDEPTH", Path(__file__).parents[2] / "shared/depth/fastdepth_quant.tflite"))


@pytest.mark.skipif(not FILE.exists(), reason="FastDepth's file is not here (LYRA_FASTDEPTH)")
def test_constants_make_the_published_network(photo: Path):
    from lyra.files import load_image

    network = FastDepth(FILE)
    assert sum(x.numel() for x in network.constants.values()) == pytest.approx(1.35e6, rel=0.01)
    image = load_image(photo)[None, :, ::4, ::4].float()
    depth = network(image)[0]
    assert depth.shape == image.shape[2:]
    # A room, in metres; its floor in front is nearer than what is in the middle.
    assert 0.5 < depth.median() < 8
    height, width = depth.shape
    assert depth[-height // 8 :].mean() < depth[height // 3 : height // 2, width // 3 : -width // 3].mean()


def test_other_files_are_refused(tmp_path: Path):
    with pytest.raises(LyraError, match="train without its labels"):
        FastDepth(tmp_path / "nothing.tflite")
    (tmp_path / "wrong.tflite").write_bytes(b"\x00\x00\x00\x00TFL3" + bytes(60))
    with pytest.raises(LyraError, match="is not FastDepth's"):
        FastDepth(tmp_path / "wrong.tflite")
