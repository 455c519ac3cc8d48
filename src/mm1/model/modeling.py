"""MM1: a vision tower, a connector and a decoder, as one `transformers` model.

Letters of shapes: B rows of the batch, L tokens of a row, N images, M target positions,
D the decoder's width, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel, AutoModelForImageTextToText, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, ModelOutput
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import maybe_install_capturing_hooks

from mm1.errors import UserError
from mm1.model.configuration import MM1Config
from mm1.model.connectors import build_connector
from mm1.model.connectors.attention_pool import AttentionPool
from mm1.model.connectors.c_abstractor import CAbstractor, LayerNorm2d
from mm1.model.sparse import Routing, routing, sparsify
from mm1.model.vision import patch_features, reads_inner_layer


@dataclass
class MM1ModelOutput(BaseModelOutputWithPast):
    """What `MM1Model` returns: the decoder's output and the image tokens.

    Attributes:
        image_hidden_states: `(N, tokens per image, D)`, or None without images.
        routing: What the routers of a sparse decoder did, None for a dense one.
    """

    image_hidden_states: torch.Tensor | None = None
    routing: Routing | None = None


@dataclass
class MM1Output(ModelOutput):
    """What `MM1ForConditionalGeneration` returns.

    Attributes:
        loss: Mean cross entropy over the target tokens, a scalar.
        logits: `(B, L, V)`, or `(M, V)` where `target_positions` are given.
        past_key_values: The cache, where one is used.
        hidden_states: Of the decoder, if asked for.
        attentions: Of the decoder, if asked for.
        image_hidden_states: `(N, tokens per image, D)`, or None without images.
        routing: What the routers of a sparse decoder did, None for a dense one. `loss` includes
            `routing.loss`; who computes a loss from `logits` adds it.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    image_hidden_states: torch.Tensor | None = None
    routing: Routing | None = None


class MM1PreTrainedModel(PreTrainedModel):
    """What the models below share: configuration, initialisation, what they support."""

    config: MM1Config
    config_class = MM1Config
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ["image", "text"]  # noqa: RUF012  (the library declares a list)
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012  (as above)
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Normal of the decoder's `initializer_range` (0.02), for the connector too; norms to one."""
        if isinstance(module, LayerNorm2d):  # the library goes by the class's name, which ends in "2d"
            init.ones_(module.weight)
            init.zeros_(module.bias)
            return
        super()._init_weights(module)
        std = self.config.get_text_config().initializer_range
        if isinstance(module, AttentionPool):
            init.normal_(module.queries, std=std)
        elif isinstance(module, CAbstractor) and module.positions is not None:
            init.normal_(module.positions, std=std)


class MM1Model(MM1PreTrainedModel):
    """Vision tower, connector and decoder, without the vocabulary head."""

    def __init__(self, config: MM1Config) -> None:
        super().__init__(config)
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.connector = build_connector(config)
        self.language_model = AutoModel.from_config(config.text_config)
        sparsify(self.language_model, config)
        if reads_inner_layer(config):
            # The library does so at the first forward, under a lock that breaks a compiled graph.
            maybe_install_capturing_hooks(self.vision_tower)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the decoder's token embedding."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Set the decoder's token embedding."""
        self.language_model.set_input_embeddings(value)

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode images to the tokens the decoder reads.

        Args:
            pixel_values: Normalised images `(N, 3, image_size, image_size)`.

        Returns:
            `(N, tokens per image, D)`.
        """
        pixels = pixel_values.to(self.vision_tower.dtype)
        return self.connector(patch_features(self.vision_tower, self.config, pixels))

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_positions: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> MM1ModelOutput:
        """Run the decoder over text and images.

        Args:
            input_ids: `(B, L)`; the image token stands wherever a token of an image goes.
            pixel_values: `(N, 3, image_size, image_size)`, the images of the whole batch in reading order.
            attention_mask: `(B, L)`, 0 at padding. None for packed rows.
            position_ids: `(B, L)`. With `attention_mask` None, every restart begins another document, and
                attention never crosses from one to the next.
            past_key_values: Cache of earlier tokens.
            inputs_embeds: `(B, L, D)` in place of `input_ids`.
            image_positions: `(N * tokens per image,)`, where the images' tokens go in the flattened
                `(B * L)`; saves searching `input_ids` for them, which synchronises a GPU. If it is empty, images
                are encoded and go nowhere: so a rank without images keeps step with ranks that have some.
            use_cache: Whether to fill a cache. Default: the decoder's own, except for packed rows,
                where a cache would make attention cross documents' borders.
            kwargs: Passed to the decoder.

        Raises:
            UserError: If there are more or fewer image tokens than the images need.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give input_ids or inputs_embeds, one of the two")
        embeds = self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
        images = None
        if pixel_values is not None and len(pixel_values):
            images = self.get_image_features(pixel_values).to(embeds.dtype)
            if image_positions is None:
                embeds = _place(images, self._find_image_tokens(input_ids, embeds), embeds)
            elif len(image_positions):
                embeds = _place(images, image_positions, embeds)
            else:  # a stand-in image, for ranks that must run the tower because another has images
                embeds = embeds + 0 * images.sum()
        elif image_positions is not None and len(image_positions):
            raise UserError(f"{len(image_positions)} image tokens in the text, but no image: give pixel_values")
        if use_cache is None and past_key_values is None and attention_mask is None:
            use_cache = False if position_ids is not None else None
        outputs = self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=embeds,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        return MM1ModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=images,
            routing=self._routing(input_ids, attention_mask, position_ids),
        )

    def _routing(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor | None,
    ) -> Routing | None:
        """Return what the routers did, padding apart, or None where nothing is a target or nothing sparse."""
        if self.config.moe_num_experts == 0:
            return None
        padding = None
        if attention_mask is not None and attention_mask.ndim == 2:
            padding = (attention_mask == 0).flatten()
            if input_ids is not None and input_ids.numel() != padding.numel():
                padding = None  # a step of generation: the mask covers the cache too
        elif input_ids is not None and position_ids is not None:
            # In packed rows each padding token is a document of its own; a real document has two tokens.
            alone = (position_ids == 0) & (F.pad(position_ids[:, 1:], (0, 1)) == 0)
            padding = (alone & (input_ids == self.config.text_config.pad_token_id)).flatten()
        return routing(self.language_model, self.config, padding)

    def _find_image_tokens(self, input_ids: torch.Tensor | None, embeds: torch.Tensor) -> torch.Tensor:
        """Return the positions of image tokens in the flattened batch."""
        token = self.config.image_token_id
        if input_ids is not None:
            is_image = input_ids == token
        else:
            embedded = self.get_input_embeddings()(torch.tensor(token, device=embeds.device))
            is_image = (embeds == embedded).all(-1)
        return is_image.flatten().nonzero().squeeze(1)


class MM1ForConditionalGeneration(MM1PreTrainedModel, GenerationMixin):
    """MM1 with its vocabulary head: trains, scores and generates."""

    # The library declares a dict.
    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012
    # The library's own; it types `self` as a protocol, for a checker (ty) that is not mypy.
    generate: Callable[..., Any]

    def __init__(self, config: MM1Config) -> None:
        super().__init__(config)
        self.model = MM1Model(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        # Its place is filled by an encoder: as a word it means nothing and would be taken for an image.
        self.generation_config.suppress_tokens = [config.image_token_id]
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """Return the vocabulary head."""
        return self.lm_head

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode images `(N, 3, H, W)` to the decoder's tokens `(N, tokens per image, D)`."""
        return self.model.get_image_features(pixel_values)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        image_positions: torch.Tensor | None = None,
        target_positions: torch.Tensor | None = None,
        target_ids: torch.Tensor | None = None,
        num_items_in_batch: int | torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> MM1Output:
        """Compute logits, and the loss where targets are given.

        There are two ways to give targets. `labels` is the library's: full logits `(B, L, V)`. With
        `target_positions` and `target_ids` the vocabulary is computed at the target positions alone,
        which for a packed row of mostly image tokens saves most of the memory of training.

        Args:
            input_ids: See `MM1Model.forward`.
            pixel_values: See `MM1Model.forward`.
            attention_mask: See `MM1Model.forward`.
            position_ids: See `MM1Model.forward`.
            past_key_values: See `MM1Model.forward`.
            inputs_embeds: See `MM1Model.forward`.
            labels: `(B, L)`, the token at each place, -100 where there is no target; shifted here.
            logits_to_keep: How many of the last positions get logits (0: all), or which.
            image_positions: See `MM1Model.forward`.
            target_positions: `(M,)`, positions in the flattened `(B * L)` whose output predicts a
                target token (the one after it).
            target_ids: `(M,)`, those tokens.
            num_items_in_batch: What the summed loss is divided by; default the target tokens given here.
                Lets the mean run over several micro-batches or ranks.
            use_cache: See `MM1Model.forward`.
            kwargs: Passed to the decoder.
        """
        if target_positions is not None:
            use_cache = False
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            image_positions=image_positions,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        loss = None
        if target_positions is not None:
            logits = self.lm_head(hidden.flatten(0, 1).index_select(0, target_positions))
            if target_ids is not None:
                loss = _cross_entropy(logits, target_ids, num_items_in_batch)
        else:
            logits = self.lm_head(slice_logits_to_keep(hidden, logits_to_keep))
            if labels is not None:
                loss = self.loss_function(
                    logits=logits,
                    labels=labels,
                    vocab_size=self.config.text_config.vocab_size,
                    num_items_in_batch=num_items_in_batch,
                )
        if loss is not None and outputs.routing is not None:
            loss = loss + outputs.routing.loss
        return MM1Output(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=outputs.image_hidden_states,
            routing=outputs.routing,
        )

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Prepare one step, as the library does; an image token without any image is an error."""
        prepare: Any = super().prepare_inputs_for_generation  # type: ignore[misc]  # the protocol of `generate`
        inputs: dict[str, Any] = prepare(*args, **kwargs)
        pixels = inputs.get("pixel_values")
        if kwargs.get("is_first_iteration") and (pixels is None or len(pixels) == 0):
            input_ids = inputs.get("input_ids")
            count = 0 if input_ids is None else int((input_ids == self.config.image_token_id).sum())
            if count:
                raise UserError(f"{count} image tokens in the text, but no image: give the images as pixel_values")
        return inputs

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.LongTensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[torch.LongTensor, dict[str, Any]]:
        """Repeat rows for beams and samples, and with each row its images, however many it has."""
        pixels = model_kwargs.pop("pixel_values", None)
        if pixels is not None and expand_size > 1:
            if input_ids is None:
                raise ValueError("beams and several samples with images need input_ids")
            past = model_kwargs.get("past_key_values")
            cached = 0 if past is None else past.get_seq_length()
            tokens = (input_ids[:, cached:] == self.config.image_token_id).sum(1)
            counts = (tokens // self.config.image_seq_length).tolist()
            rows = torch.split(pixels, counts)
            pixels = torch.cat([row for row in rows for _ in range(expand_size)])
        expand: Any = super()._expand_inputs_for_generation  # type: ignore[misc]  # the protocol of `generate`
        expanded, inputs = expand(expand_size, is_encoder_decoder, input_ids, **model_kwargs)
        if pixels is not None:
            inputs["pixel_values"] = pixels
        return expanded, inputs


def _place(images: torch.Tensor, image_positions: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
    """Return the embeddings with the images' tokens laid over their positions."""
    features = images.flatten(0, 1)
    if len(features) != len(image_positions):
        count, tokens = images.shape[:2]
        raise UserError(
            f"{len(image_positions)} image tokens in the text, but {count} images of {tokens} tokens need "
            f"{len(features)}: give one placeholder per image"
        )
    return embeds.flatten(0, 1).index_copy(0, image_positions, features).view_as(embeds)


def _cross_entropy(
    logits: torch.Tensor, target_ids: torch.Tensor, num_items: int | torch.Tensor | None
) -> torch.Tensor:
    """Return the summed cross entropy, in float32, over `num_items` (default M)."""
    total = F.cross_entropy(logits.float(), target_ids, reduction="sum")
    return total / (max(1, len(target_ids)) if num_items is None else num_items)


AutoModel.register(MM1Config, MM1Model)
AutoModelForImageTextToText.register(MM1Config, MM1ForConditionalGeneration)
