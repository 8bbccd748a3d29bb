"""Writes model.pt, a TorchScript file: `pip install torch && python export.py`."""

from pathlib import Path

import torch


class Lengths(torch.nn.Module):
    """Says whether a text, as bytes, is short or long: put your own model in its place."""

    def forward(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        difference = (lengths.to(torch.float32) - 20.0) / 10.0
        return torch.stack([-difference, difference], dim=1)


if __name__ == "__main__":
    torch.jit.script(Lengths()).save(str(Path(__file__).parent / "model.pt"))
