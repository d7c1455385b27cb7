"""The Modelfile of a deployment, for those who run `ollama create` by hand.

The text is `judge.exporter.create_ollama_modelfile`, the only place that writes Modelfiles; here it is filled with what
a deployment says, so that the model made by hand is the one that AI Forge deploys. Deploying itself uses Ollama's HTTP
interface and needs no Modelfile.
"""

from ai_forge.conductor.deployment import Deployment
from ai_forge.judge.exporter import create_ollama_modelfile


def modelfile_for(deployment: Deployment) -> str:
    """The Modelfile's text. Raises `InputError` where the system prompt cannot be written into one."""
    sampling = deployment.sampling
    return create_ollama_modelfile(
        deployment.model,
        deployment.gguf_path,
        deployment.system_prompt,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        num_ctx=sampling.num_ctx,
        num_predict=sampling.num_predict,
        stop=deployment.stop,
    )
