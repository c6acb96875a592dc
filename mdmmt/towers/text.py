"""The text tower of MDMMT (arXiv 2103.10699, section 3.4): token ids -> embedding.

BERT reads the text; its first token goes through a gated embedding unit for each expert
(Miech et al., 2018) and through a softmax that weighs the experts against each other. Sub-modules
carry the names of the released checkpoint: `txt_bert` those of Hugging Face's BertModel, the heads
those of MMT (Gabeur et al., 2020).

Shape notation: b batch, m experts, n tokens, d width of BERT, e `same_dim`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import EncoderConfig, TextConfig
from .transformer import Encoder, Pooler, init_weights


class TextEmbeddings(nn.Module):
    """Word + position + segment, normalised."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        d = config.hidden_size
        assert config.vocab_size is not None  # as in the encoder of a video tower
        self.word_embeddings = nn.Embedding(config.vocab_size, d)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, d)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, d)
        self.LayerNorm = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        """[..., n], [n] or [..., n] -> [..., n, d]; all tokens are of the first segment"""
        x = self.word_embeddings(input_ids) + self.token_type_embeddings.weight[0]
        return self.dropout(self.LayerNorm(x + self.position_embeddings(positions)))


class TextBert(nn.Module):
    """BERT without its pretraining heads."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.embeddings = TextEmbeddings(config)
        self.encoder = Encoder(config, norm="LayerNorm")
        self.pooler = Pooler(config)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """[b, n], [b, n] bool -> [b, n, d]"""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        return self.encoder(self.embeddings(input_ids, positions), attention_mask)


class ContextGating(nn.Module):
    """Scales each number by a gate that sees all of them (Miech et al., 2017)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.fc = nn.Linear(d, d)
        self.batch_norm = nn.BatchNorm1d(d)

    def forward(self, x: Tensor) -> Tensor:
        """[b, e] -> [b, e], each number scaled by its own gate"""
        return F.glu(torch.cat([x, self.batch_norm(self.fc(x))], dim=-1), dim=-1)


class GatedEmbedding(nn.Module):
    """A linear layer and its context gating, onto the unit sphere."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.fc = nn.Linear(d_in, d_out)
        self.cg = ContextGating(d_out)

    def forward(self, x: Tensor) -> Tensor:
        """[b, d] -> [b, e], unit length"""
        return F.normalize(self.cg(self.fc(x)), dim=-1)


class TextTower(nn.Module):
    """Token ids -> (b, m * same_dim): a unit vector an expert times that expert's weight."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        d = config.bert.hidden_size
        self.txt_bert = TextBert(config.bert)
        self.text_gu = nn.ModuleDict(
            {name: GatedEmbedding(d, config.same_dim) for name in config.experts}
        )
        self.moe_fc_txt = nn.ModuleDict({name: nn.Linear(d, 1) for name in config.experts})
        self.dropout = nn.Dropout(config.dropout)
        init_weights(self.txt_bert, config.bert.initializer_range)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed a batch of tokenised texts.

        Args:
            input_ids: [b, n] int64.
            attention_mask: [b, n] bool, true for tokens that are there.

        Returns:
            [b, m * same_dim] float, of norm at most 1.
        """
        return self.heads(self.txt_bert(input_ids, attention_mask)[:, 0])

    def heads(self, x: Tensor) -> Tensor:
        """BERT's first token [b, d] -> [b, m * same_dim]"""
        weighed = self.dropout(x)
        logits = torch.cat([self.moe_fc_txt[name](weighed) for name in self.config.experts], dim=-1)
        vectors = torch.stack([self.text_gu[name](x) for name in self.config.experts], dim=1)
        return (vectors * logits.softmax(dim=-1)[..., None]).flatten(1)  # [b, m, e] -> [b, m*e]
