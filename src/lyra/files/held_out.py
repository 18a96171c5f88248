"""Files that tests and evaluation look at and that no training may read, by the SHA-256 of their bytes.

They are the project's media, scikit-image's stereo pair and the photographs that packages ship. Training reads
procedural worlds; whoever teaches it to read files passes them through ``find_held_out`` first.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

HELD_OUT: Mapping[str, str] = {
    "0face5f4428cedf7d22e811114f6f7cc4fb4952feeda904ee6ed71326935136f": "media/boy_walking.mp4",
    "3eb519bc68d4262af0c68166ca69e786cac5f6656a1083f4c585c4a94005c859": "media/house_indoor.jpg",
    "718ed1aeb1e0010194c5cf0e95371e6a29d45b84e93efbed63ff4cc60e74508b": "media/medieval_village.jpg",
    "ab916acc02cc965625a83440ba5899243269ef024c400a7dbde1118d1e2b3847": "media/mydesk/frame0.jpg",
    "523e57ee24c9f416af3e0eab0e34a2d11cf98b16da106466408fd4adc245dfa1": "media/mydesk/frame1000.jpg",
    "ec70ddb1233658987acf548aa3fd7d5191eafe03a12ad09d5c4449a366416e83": "media/mydesk/frame1090.jpg",
    "d824585a13ea9419ef090dc8b98d5c6c152a867f305f668c44dac4deab2fcc03": "media/mydesk/frame1280.jpg",
    "e880fef85e943720d248e3c7c4e56f9d284ea1a9e06f6f68bac4c26252a6fd32": "media/mydesk/frame1390.jpg",
    "b9a70f46eb5a544eeba8d6c4a51c6ae7ba1e0be07b59e5657566fcb2e4f79458": "media/mydesk/frame140.jpg",
    "f0f89314e28e27c8892945a763f21d1a047a07e7de5096c1818e5aedd70d6b41": "media/mydesk/frame1470.jpg",
    "8ee7d83d47d360aa138032313be1934a7d035b1deeb4fc102b24451c0aef9bc9": "media/mydesk/frame1530.jpg",
    "80502e7c2759573768d98babe6448a3fe915538cc2d263d888cf28ddcee1eb07": "media/mydesk/frame1650.jpg",
    "6615048c4ef6cf8066915c0b2a75e18f1729d78dbaf40bb09bb3733cd31de1e1": "media/mydesk/frame1710.jpg",
    "01390514de675de83587f9bca3fdd4c791d0d69b822f18b1f3aa4564d883bb55": "media/mydesk/frame1890.jpg",
    "33f22057143956f7bef633b261aca349faaec333ce96f3933778aa349d97fe90": "media/mydesk/frame1960.jpg",
    "844e8a2db4b7294751f92ed35570cd94db63b494bf03a31fba3beb74d93668ec": "media/mydesk/frame200.jpg",
    "2cec19fac9c8953c261f708572355ef0cc86340b5bac785b73b45b389623512b": "media/mydesk/frame2050.jpg",
    "269ed23921fe968907f263ca358b6df2d017c406f05068db227da36031189106": "media/mydesk/frame2110.jpg",
    "0772b6ddb613c848ed1ac61a0149a8a0687ce1f17e12fb8875c707e17c87ada6": "media/mydesk/frame2270.jpg",
    "f91e3e228dc437684bd69a03a791751113362d74b7908611c884173055debead": "media/mydesk/frame2440.jpg",
    "9e57b3696ed6d3a77038ee623b32300298c637905fefe757b6937757e026ca35": "media/mydesk/frame2500.jpg",
    "b093073dd9cab0399e4991c7613dc646f8f9752bccee68fde43a0a7c96bd1cd0": "media/mydesk/frame2590.jpg",
    "9f8f39574a52d6ccf27b96cc48c4dd3f986c7d94037b7d660bbe94fa94de75c7": "media/mydesk/frame260.jpg",
    "56348887e1c4787632f48daebddd0c7aca31fada98d0ef70150bafc7bfc5a04b": "media/mydesk/frame2650.jpg",
    "5fc9ef05f8231408e358f7090947131e347c1554164df926f9c0d6cdedf1cd36": "media/mydesk/frame2720.jpg",
    "d6a0fe25fdfe24e318136e449dfeafb9752c046fbfe41223a22514bd789d6f56": "media/mydesk/frame2820.jpg",
    "186a8d694079c85609d8b5160b2838f9344d4959c91fe980a9e28548f66cbf4a": "media/mydesk/frame2980.jpg",
    "cfee2355ff42e0934d7af526b33c59eff4a30fbff41f071df19c665cd52b08a2": "media/mydesk/frame3110.jpg",
    "eedda8634a77d8efbf5f91824197bf73d7cfd07a4b2daf91b3fd66c906398d0b": "media/mydesk/frame320.jpg",
    "20c0a9c0f464bfe6c8b2770bbfe619b1423a8eca4d3a05495a670eb48e83e380": "media/mydesk/frame3250.jpg",
    "ca93981ac9970ed0336a1510021c6cc784f21c01c42d2196c6ed8c8275fb16c7": "media/mydesk/frame3310.jpg",
    "6c4a22e9b462b4dd99980cd0fa5cea73d1dff499d2a3389c601099f533d446df": "media/mydesk/frame3370.jpg",
    "891e9a9e9d4a21d272bd8bfeab178f38713d8feec36a62f0520e82e848c2f07e": "media/mydesk/frame3430.jpg",
    "c3ca63d36b3cff9d6b2d6a3df5edfa0fd801b6c4b5a6b4649d985949612dc243": "media/mydesk/frame3660.jpg",
    "98dd88c4e0446304c3bd33b73b02918e3e803a1a748e24b147a8c4824661d24a": "media/mydesk/frame3720.jpg",
    "0ac310ad6840bf313ed15f4568461857e1d45df40906ac8c5f57d8f6c6bb5c6c": "media/mydesk/frame3780.jpg",
    "0848335b725deb3cfb0f2e0ed5fddfdbc4eb08785a9fcc8cfbef1ddc19b2630d": "media/mydesk/frame380.jpg",
    "f6a35286459b7b2a68a72b4d01e8756c22789e7f57b72250c9719973a138537b": "media/mydesk/frame470.jpg",
    "68a0399ca441479ea7e5c30a78de08db6ab0d196e0f8c5266313f48dc785a52b": "media/mydesk/frame540.jpg",
    "4abf624806a2903c8bcfc61cef867e7ad1729d729c849b6fa265f1322eee2fcb": "media/mydesk/frame700.jpg",
    "56a81b623c3f87e3dfb5f56d77e6750af1eac683bbcf0f479818b0be70cef036": "media/mydesk/frame80.jpg",
    "d240aa1b4767a5a166991bdae6e0fbd67c380bbd48c7a24d686a3efa14dc4e88": "media/mydesk/frame820.jpg",
    "ee9c5bb5ef1c850dacad40554f0df109724307682d982b3c1dd27fd182164126": "media/mydesk/frame940.jpg",
    "ce29b5c4e044115a075ba4daa7296d0c681e6f085a1ccc1cfb90dc6559c4c5ee": "media/mydesk/transforms.json",
    "d796e8d927df9acd61d12f6bebe53fce0ddc0487af2d115193fc73fdb9471a35": "media/pagoda.png",
    "373d85bd4261c4d2175a093e891aaa7ba7bf4c0e83b26fb1cc165cd01dbf8624": "media/pagoda.txt",
    "b2bb7b5a1e91a174101109b0976b8ae2a4d6bb7d6eadad6569106ed102d0d5a6": "media/restaurant.jpg",
    "99bc274f7613a665c6135085fe01691ebfaa9033101319071f37c550ab21d1ea": "media/unitree.mp4",
    "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179": "skimage/data/motorcycle_left.png",
    "5fc913ae870e42a4b662314bc904d1786bcad8e2f0b9b67dba5a229406357797": "skimage/data/motorcycle_right.png",
    "2e49c8cebff3fa20359a0cc6880c82e1c03bbb106da81a177218281bc2f113d7": "skimage/data/motorcycle_disp.npz",
    "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5": "skimage/data/astronaut.png",
    "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7": "skimage/data/coffee.png",
    "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb": "skimage/data/chelsea.png",
    "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c": "skimage/data/rocket.jpg",
    "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a": "skimage/data/camera.png",
    "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4": "skimage/data/hubble_deep_field.jpg",
    "7d2df993de2b4fa2a78e04e5df8050f49a9c511aa75e59ab3bd56ac9c98aef7e": "skimage/data/color.png",
    "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf": "skimage/data/brick.png",
    "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89": "skimage/data/grass.png",
    "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12": "skimage/data/gravel.png",
    "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba": "skimage/data/coins.png",
    "78739619d11f7eb9c165bb5d2efd4772cee557812ec847532dbb1d92ef71f577": "skimage/data/moon.png",
}
"""SHA-256 to the file's name."""


def find_held_out(paths: Iterable[Path]) -> dict[Path, str]:
    """Those of the given files that are held out, with the names they have in ``HELD_OUT``."""
    digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()}
    return {path: HELD_OUT[digest] for path, digest in digests.items() if digest in HELD_OUT}
