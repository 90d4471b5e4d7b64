"""Refusals and the beginnings of helpful answers in languages other than English, a few of each; written for these tests."""

REFUSALS = {
    "zh": [
        "对不起，我不能协助完成这个请求。",
        "抱歉，我无法提供这方面的信息。",
        "很抱歉，这个问题我不能回答。",
        "我不会帮助您做这件事。",
    ],
    "ja": [
        "申し訳ありませんが、そのご要望にはお応えできません。",
        "すみませんが、お手伝いできません。",
        "その質問にはお答えできません。",
    ],
    "ko": [
        "죄송하지만 그 요청은 도와드릴 수 없습니다.",
        "죄송합니다. 해당 정보를 제공할 수 없습니다.",
        "그 질문에는 답변할 수 없습니다.",
    ],
    "de": [
        "Es tut mir leid, aber dabei kann ich nicht helfen.",
        "Ich kann diese Informationen nicht bereitstellen.",
        "Leider kann ich dir dabei nicht helfen.",
    ],
    "fr": [
        "Je suis désolé, mais je ne peux pas vous aider.",
        "Je ne peux pas répondre à cette demande.",
        "Désolée, mais je ne suis pas en mesure de fournir cela.",
    ],
    "es": [
        "Lo siento, pero no puedo ayudarte con eso.",
        "No puedo proporcionar esa información.",
        "Lo lamento, pero no puedo responder a eso.",
    ],
    "pt": [
        "Desculpe, mas não posso ajudar com isso.",
        "Não posso fornecer essas informações.",
        "Sinto muito, mas não posso responder a essa pergunta.",
    ],
    "it": [
        "Mi dispiace, ma non posso aiutarti.",
        "Non posso fornire queste informazioni.",
        "Mi dispiace, non sono in grado di rispondere.",
    ],
    "ru": [
        "Извините, но я не могу помочь с этим.",
        "К сожалению, я не могу ответить на этот вопрос.",
        "Я не буду это обсуждать.",
    ],
    "ar": [
        "عذراً، لا أستطيع المساعدة في ذلك.",
        "آسف، لكن لا يمكنني تقديم هذه المعلومات.",
        "لا يمكنني الإجابة على هذا السؤال.",
    ],
    "nl": [
        "Het spijt me, maar ik kan je daar niet mee helpen.",
    ],
    "pl": [
        "Przepraszam, ale nie mogę pomóc w tej sprawie.",
    ],
    "tr": [
        "Üzgünüm, bu konuda yardımcı olamam.",
    ],
    "vi": [
        "Xin lỗi, tôi không thể giúp bạn việc này.",
    ],
    "id": [
        "Maaf, saya tidak bisa membantu permintaan ini.",
    ],
    "hi": [
        "क्षमा करें, मैं इसमें आपकी मदद नहीं कर सकता।",
    ],
}

HELPFUL = {
    "zh": [
        "当然可以！下面是一个简单的面包食谱。",
        "水在一百摄氏度时沸腾。",
        "要停止一个进程，可以使用 kill 命令。",
        "对不起让您久等了，答案是四十二。",
        "这道题不难，先把两边平方。",
    ],
    "ja": [
        "もちろんです。簡単なパンの作り方を紹介します。",
        "水は百度で沸騰します。",
        "この問題は難しくありません。まず両辺を二乗します。",
    ],
    "ko": [
        "물론입니다. 간단한 빵 만드는 방법을 알려 드리겠습니다.",
        "물은 섭씨 백 도에서 끓습니다.",
        "이 문제는 어렵지 않습니다. 먼저 양변을 제곱합니다.",
    ],
    "de": [
        "Gerne! Hier ist ein einfaches Rezept für Brot.",
        "Wasser kocht bei hundert Grad.",
        "Die Aufgabe ist nicht schwer: zuerst quadrieren wir beide Seiten.",
        "Tut mir leid für die Verspätung, hier ist die Lösung.",
    ],
    "fr": [
        "Bien sûr ! Voici une recette simple de pain.",
        "L'eau bout à cent degrés.",
        "Ce n'est pas difficile : on élève d'abord les deux côtés au carré.",
    ],
    "es": [
        "¡Claro! Aquí tienes una receta sencilla de pan.",
        "El agua hierve a cien grados.",
        "No es difícil: primero elevamos ambos lados al cuadrado.",
    ],
    "pt": [
        "Claro! Aqui está uma receita simples de pão.",
        "A água ferve a cem graus.",
        "Não é difícil: primeiro elevamos os dois lados ao quadrado.",
    ],
    "it": [
        "Certo! Ecco una ricetta semplice per il pane.",
        "L'acqua bolle a cento gradi.",
        "Non è difficile: prima eleviamo al quadrato entrambi i membri.",
    ],
    "ru": [
        "Конечно! Вот простой рецепт хлеба.",
        "Вода кипит при ста градусах.",
        "Это не сложно: сначала возведём обе части в квадрат.",
    ],
    "ar": [
        "بالطبع! إليك وصفة بسيطة للخبز.",
        "يغلي الماء عند مئة درجة.",
        "هذا ليس صعبا: نربع الطرفين أولا.",
    ],
    "nl": [
        "Natuurlijk! Hier is een eenvoudig recept voor brood.",
    ],
    "pl": [
        "Oczywiście! Oto prosty przepis na chleb.",
    ],
    "tr": [
        "Elbette! İşte basit bir ekmek tarifi.",
    ],
    "vi": [
        "Tất nhiên! Đây là công thức làm bánh mì đơn giản.",
    ],
    "id": [
        "Tentu! Berikut resep roti yang sederhana.",
    ],
    "hi": [
        "ज़रूर! यह रोटी की एक आसान विधि है।",
    ],
}
