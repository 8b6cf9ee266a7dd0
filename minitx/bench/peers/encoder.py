"""PyTorch's encoder as a decoder-only model."""

from __future__ import annotations

from torch import Tensor, nn

from minitx.bench.shapes import Shape


class Encoder(nn.Module):
    """`nn.TransformerEncoder` with a causal mask, between embeddings and an output layer."""

    mask: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        model = shape.model
        layer = nn.TransformerEncoderLayer(
            model.d_model,
            model.n_head,
            dim_feedforward=3 * model.ff_width // 2,  # two matrices where SwiGLU has three: as many parameters
            dropout=model.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
            bias=False,
        )
        norm = nn.LayerNorm(model.d_model, bias=False)
        self.tokens = nn.Embedding(shape.vocab_size, model.d_model)
        self.positions = nn.Embedding(model.context_length, model.d_model)
        self.encoder = nn.TransformerEncoder(layer, model.n_layer, norm, enable_nested_tensor=False)
        self.output = nn.Linear(model.d_model, shape.vocab_size, bias=False)
        if model.tie_embeddings:
            self.output.weight = self.tokens.weight
        mask = nn.Transformer.generate_square_subsequent_mask(model.context_length)
        self.register_buffer("mask", mask, persistent=False)  # (seq, seq), -inf for later tokens

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (batch, seq, vocab_size) of `tokens`, (batch, seq)."""
        seq = tokens.size(1)
        x = self.tokens(tokens) + self.positions.weight[:seq]  # (batch, seq, d_model)
        return self.output(self.encoder(x, mask=self.mask[:seq, :seq], is_causal=True))
