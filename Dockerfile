# The GPU environment of requirements/gpu.lock with this repository in /ser; docs/gpu.md says how to run it.
# torch brings CUDA itself, and the NVIDIA container toolkit mounts the driver. gcc and Python's headers are for Triton,
# which compiles kernels when they are first called.
FROM python:3.11-bookworm

WORKDIR /ser
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility PYTHONUTF8=1

# The packages are a layer of their own, which changes of the code leave as it is.
COPY setup.py pyproject.toml README.md ./
COPY requirements requirements
COPY install install
RUN PIP_NO_CACHE_DIR=1 install/install.sh gpu

COPY . .
RUN make install gpu=true
ENV PATH=/ser/.venv/bin:$PATH
